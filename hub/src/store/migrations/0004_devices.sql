-- A device is its MAC, and has had several addresses, names and makers' words said of it.

-- The best of its names is devices.hostname; who gave it, what its MAC is and whose block.
ALTER TABLE devices ADD COLUMN name_source VARCHAR;     -- hub, static, lease, pihole, ptr
ALTER TABLE devices ADD COLUMN mac_kind VARCHAR;        -- registered, virtual, random
ALTER TABLE devices ADD COLUMN vendor VARCHAR;
UPDATE devices SET name_source = 'lease' WHERE hostname IS NOT NULL;

CREATE TABLE device_names (                             -- one row per (mac, source)
    mac        VARCHAR   NOT NULL,
    source     VARCHAR   NOT NULL,
    name       VARCHAR   NOT NULL,                      -- the last one of this source
    first_seen TIMESTAMP NOT NULL,                      -- of this name
    last_seen  TIMESTAMP NOT NULL
);
INSERT INTO device_names
    SELECT mac, 'lease', hostname, first_seen, last_seen FROM devices WHERE hostname IS NOT NULL;

-- A device may have an address, lose it to another and have it again: one row for each stay,
-- numbered by the microsecond it was made of.
ALTER TABLE device_addresses ADD COLUMN stay BIGINT DEFAULT 0;
UPDATE device_addresses SET stay = epoch_us(first_seen);

-- Whose an address was when: from a device's first sighting there up to the next one's.
-- Column names of its own, so that they hide none in a condition around it.
CREATE VIEW address_owners AS
    SELECT ip AS address, mac AS device,
        CASE WHEN lag(mac) OVER own IS NULL THEN '-infinity'::TIMESTAMP ELSE first_seen END AS owned_since,
        coalesce(lead(first_seen) OVER own, 'infinity'::TIMESTAMP) AS owned_until
    FROM device_addresses
    WINDOW own AS (PARTITION BY ip ORDER BY first_seen, mac);
