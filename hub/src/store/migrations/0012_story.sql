-- One row for each connection: the question it followed, the program that made it, the device
-- it was. NULL where nobody saw it.
CREATE VIEW story AS
    SELECT f.begun AS time, v.hostname AS device, f.mac,
        -- Ports are used again: of long before, it is another connection.
        CASE WHEN c.told >= f.begun - INTERVAL 2 MINUTE THEN c.program END AS program,
        CASE WHEN c.told >= f.begun - INTERVAL 2 MINUTE THEN c.pid END AS pid,
        CASE WHEN c.told >= f.begun - INTERVAL 2 MINUTE THEN c.host END AS host,
        CASE WHEN c.told >= f.begun - INTERVAL 2 MINUTE THEN c.parent END AS parent,
        d.asked, f.name, f.name_age_ms, d.resolver, d.status AS answer, d.latency_us,
        f.proto, f.src, f.sport, f.dst, f.dport, f.bytes_out, f.bytes_in, f.duration_ms,
        f.replied, f.open, f.sensor
    FROM (
        SELECT *, coalesce(start, time) AS begun, coalesce(mac, src) AS who,
            coalesce(start, time) + INTERVAL 2 SECOND AS asked_by,
            coalesce(start, time) + INTERVAL 2 MINUTE AS owned_by
        FROM flows
    ) f
    ASOF LEFT JOIN (
        SELECT time AS asked, coalesce(mac, client) AS who, name, source AS resolver, status,
            latency_us
        FROM dns WHERE answers IS NOT NULL
    ) d ON f.who = d.who AND f.name = d.name AND f.asked_by >= d.asked
    ASOF LEFT JOIN (
        SELECT c.proto, c.src, c.sport, c.dst, c.dport, c.time AS told, c.name AS program, c.pid,
            p.host, p.parent, coalesce(c.start, c.time) AS owned
        FROM connections c LEFT JOIN (
            SELECT sensor, process, any_value(host) AS host,
                arg_max(CASE WHEN json_valid(ancestors) THEN ancestors->0->>'name' END, time) AS parent
            FROM processes GROUP BY sensor, process
        ) p USING (sensor, process)
        WHERE c.direction <> 'listen'
    ) c ON f.proto = c.proto AND f.src = c.src AND f.sport = c.sport AND f.dst = c.dst
        AND f.dport = c.dport AND f.owned_by >= c.owned
    LEFT JOIN devices v ON v.mac = f.mac;
