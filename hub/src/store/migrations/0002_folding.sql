-- An alert that another one tells too: what a burst, a scan or another sum of many findings
-- about the same client covers has status 'folded' and the id of the alert that is told.
-- It keeps its key and its findings. One that a person had acknowledged keeps its status.

ALTER TABLE alerts ADD COLUMN folded_into BIGINT;
