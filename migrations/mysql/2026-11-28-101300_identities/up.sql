-- Each log-out makes a new generation; a token of ours carries the one it was issued in, and older ones are refused.
ALTER TABLE users ADD COLUMN token_generation BIGINT NOT NULL DEFAULT 0;

-- Tokens of the version before named no issuer, and a shop could sign its own with the same secret: orders may belong to
-- numbers that users here were never given. New users get numbers above them, so that nobody inherits a stranger's orders.
-- Numbers that a sequence cannot reach are left out.
SET @above = (SELECT COALESCE(MAX(user_id), 0) + 1 FROM orders WHERE user_id < 1099511627776);
SET @set_sequence = CONCAT('ALTER TABLE users AUTO_INCREMENT = ', @above);
PREPARE set_sequence FROM @set_sequence;
EXECUTE set_sequence;
DEALLOCATE PREPARE set_sequence;

-- Users of the shop's own directory. Ids of `users` grow from 1, these from 2^52: they never meet, and both stay below 2^53.
-- Binary, for other text columns take 'a' and 'a ' for the same.
-- tokens_valid_from: seconds since 1970; tokens issued earlier were withdrawn.
CREATE TABLE external_users (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    issuer VARBINARY(255) NOT NULL,
    subject VARBINARY(255) NOT NULL,
    tokens_valid_from BIGINT NOT NULL DEFAULT 0,
    created_at DATETIME(3) NOT NULL,
    UNIQUE KEY external_users_subject (issuer, subject)
) ENGINE = InnoDB AUTO_INCREMENT = 4503599627370496 CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What every instance reads each second: whose tokens are refused below which generation, or, of the shop's directory,
-- before which second. Older than any token, a row is deleted.
CREATE TABLE token_withdrawals (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id BIGINT NOT NULL,
    valid_from BIGINT NOT NULL,
    created_at DATETIME(3) NOT NULL,
    KEY token_withdrawals_created_at (created_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
