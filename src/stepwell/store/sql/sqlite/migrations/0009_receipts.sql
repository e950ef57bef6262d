-- How often an event was sent under the id that its sender made for it.
ALTER TABLE events ADD COLUMN receipts INTEGER NOT NULL DEFAULT 1 CHECK (receipts >= 1);
