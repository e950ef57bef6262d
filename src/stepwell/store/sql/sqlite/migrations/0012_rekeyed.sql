-- Whether a function's runs once had other keys than today's: lanes of both may then hold one key. Of those that are there nobody knows.
ALTER TABLE functions ADD COLUMN rekeyed INTEGER NOT NULL DEFAULT 0 CHECK (rekeyed IN (0, 1));
UPDATE functions
SET rekeyed = keyed;
