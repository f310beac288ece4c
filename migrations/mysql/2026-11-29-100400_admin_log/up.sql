-- What administrators changed, each row written together with the change. user_name: what the account was called then; NULL for one of the
-- shop's own directory. object: what was changed, such as `product 7`.
CREATE TABLE IF NOT EXISTS admin_log (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id BIGINT NOT NULL,
    user_name VARCHAR(32) NULL,
    action VARCHAR(64) NOT NULL,
    object VARCHAR(64) NOT NULL,
    changes TEXT NOT NULL,
    changed_at DATETIME(3) NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
