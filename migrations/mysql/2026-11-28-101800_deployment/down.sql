-- The table `deployment` stays: Redis and the queue name this deployment by its id, also after the next upgrade.
DROP TABLE instances;
