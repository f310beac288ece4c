-- Nothing to change: what was counted goes with its columns.
DO 0;
