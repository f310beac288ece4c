-- Nothing to change: this is about SQLite's tables only.
DO 0;
