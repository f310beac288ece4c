DROP TABLE instances;
DROP TABLE deployment;
