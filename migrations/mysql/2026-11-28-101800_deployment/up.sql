-- One deployment: which Redis and which queue belong to this database. The ids are random and lie in Redis and in the queue
-- as well, so an instance that reaches another Redis or queue than the others notices. The names say where they were, for
-- whoever reads a message about them.
CREATE TABLE IF NOT EXISTS deployment (
    id TINYINT NOT NULL PRIMARY KEY,
    deployment_id VARCHAR(36) NOT NULL,
    redis_id VARCHAR(36) NULL,
    redis_name VARCHAR(512) NULL,
    queue_id VARCHAR(36) NULL,
    queue_name VARCHAR(512) NULL,
    CONSTRAINT deployment_is_one CHECK (id = 1)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Instances that run, and what each of them uses. An instance says so every second.
CREATE TABLE IF NOT EXISTS instances (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    redis_id VARCHAR(36) NULL,
    redis_name VARCHAR(512) NOT NULL,
    queue_id VARCHAR(36) NULL,
    queue_name VARCHAR(512) NOT NULL,
    seen_at DATETIME(3) NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
