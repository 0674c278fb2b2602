-- A small frozen history for the command line's tests: 2026-11-23, 13:00 to 14:32 UTC.
-- Documentation addresses and names only. One device has changed its address, one record
-- is as hostile as a damaged file may be, one sensor has gaps.
INSERT INTO sensors
  (id, name, token_hash, enrolled_at, revoked_at, last_seen, last_sent, version, pending, ring_bytes) VALUES
  (1, 'router', 'x', '2026-11-20 08:00:00', NULL, '2026-11-23 14:32:00', '2026-11-23 14:32:00', '0.1.0', 12, 1048576),
  (2, 'attic',  'x', '2026-11-20 08:00:00', NULL, '2026-11-23 12:00:00', '2026-11-23 12:00:00', '0.1.0', 0, 4096),
  (3, 'old',    'x', '2026-11-01 08:00:00', '2026-11-10 08:00:00', '2026-11-09 08:00:00', '2026-11-09 08:00:00', '0.0.9', 0, 0),
  (4, 'new',    'x', '2026-11-23 14:30:00', NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 'import', NULL, '2026-11-20 08:00:00', NULL, '2026-11-20 08:00:00', '2026-11-20 08:00:00', '0.1.0', 0, 0),
  (5, 'skewed', 'x', '2026-11-20 08:00:00', NULL, '2026-11-23 14:32:00', '2026-11-23 14:02:00', '0.1.0', 0, 4096);
INSERT INTO sensor_counters
  (sensor, name, value) VALUES
  (1, 'accepted', 123456), (1, 'drop.ring.evicted', 1200), (1, 'drop.tail.line_too_long', 3), (2, 'accepted', 7);
INSERT INTO sensor_collectors
  (sensor, name, state) VALUES
  (1, 'conntrack', 'ok'), (1, 'firewall', 'off: no nft table; agentmon-router --kernel-setup makes one'), (2, 'dnsmasq-log', 'ok');
INSERT INTO devices
  (mac, hostname, name_source, iface, mac_kind, vendor, first_seen, last_seen) VALUES
  ('00:00:5e:00:53:01', 'laptop', 'lease', 'br-lan', 'registered', 'Maker', '2026-11-01 09:00:00', '2026-11-23 14:31:00'),
  ('00:00:5e:00:53:02', 'camera', 'hub', 'br-lan', 'registered', 'Maker, Other', '2026-11-01 09:00:00', '2026-11-23 14:30:00'),
  ('02:00:5e:00:53:03', 'phone', 'ptr', 'br-lan', 'random', NULL, '2026-11-23 14:00:00', '2026-11-23 14:29:00'),
  ('00:00:5e:00:53:04', NULL, NULL, NULL, NULL, NULL, '2026-11-22 09:00:00', '2026-11-22 10:00:00');
INSERT INTO device_names
  (mac, source, name, first_seen, last_seen) VALUES
  ('00:00:5e:00:53:02', 'lease', 'esp-' || chr(27) || '[2J', '2026-11-01 09:00:00', '2026-11-23 14:30:00'),
  ('00:00:5e:00:53:02', 'hub', 'camera', '2026-11-02 09:00:00', '2026-11-02 09:00:00');
INSERT INTO device_addresses
  (mac, ip, first_seen, last_seen) VALUES
  ('00:00:5e:00:53:01', '192.168.77.10', '2026-11-01 09:00:00', '2026-11-23 14:31:00'),
  ('00:00:5e:00:53:01', '2001:db8:77::10', '2026-11-01 09:00:00', '2026-11-23 14:31:00'),
  ('00:00:5e:00:53:02', '192.168.77.11', '2026-11-01 09:00:00', '2026-11-23 13:55:00'),
  ('02:00:5e:00:53:03', '192.168.77.11', '2026-11-23 14:00:00', '2026-11-23 14:29:00'),
  ('00:00:5e:00:53:02', '192.168.77.12', '2026-11-23 14:00:00', '2026-11-23 14:30:00');
INSERT INTO dns_hot
  (time, sensor, client, mac, name, domain, qtype, status, rcode, answers, ttl, upstream, latency_us, blocked_by, source) VALUES
  ('2026-11-23 13:00:00', 1, '192.168.77.11', NULL, 'cloud.camera.example', 'camera.example', 1, 'forwarded', 0, ['203.0.113.20'], 300, '198.51.100.53', 12000, NULL, 'dnsmasq-log'),
  ('2026-11-23 14:10:00', 1, '192.168.77.11', NULL, 'push.phone.example', 'phone.example', 1, 'cached', 0, ['203.0.113.30'], 60, NULL, NULL, NULL, 'dnsmasq-log'),
  ('2026-11-23 14:20:00', 1, '192.168.77.10', '00:00:5e:00:53:01', 'www.example.com', 'example.com', 1, 'forwarded', 0, ['cdn.example.net', '203.0.113.5', '203.0.113.6'], 300, '198.51.100.53', 3210, NULL, 'passive-dns'),
  ('2026-11-23 14:20:01', 1, '192.168.77.10', '00:00:5e:00:53:01', 'www.example.com', 'example.com', 28, 'forwarded', 0, [], NULL, '198.51.100.53', 3000, NULL, 'passive-dns'),
  ('2026-11-23 14:21:00', 1, '192.168.77.10', '00:00:5e:00:53:01', 'ads.example.org', 'example.org', 1, 'blocked', NULL, ['0.0.0.0'], NULL, NULL, NULL, 'gravity', 'dnsmasq-log'),
  ('2026-11-23 14:22:00', 1, '192.168.77.12', '00:00:5e:00:53:02', 'qxkvjzwpfhg.example', 'qxkvjzwpfhg.example', 1, 'forwarded', 3, [], NULL, '198.51.100.53', 9000, NULL, 'dnsmasq-log'),
  ('2026-11-23 14:22:01', 1, '192.168.77.12', '00:00:5e:00:53:02', 'zzkqwvbnmxp.example', 'zzkqwvbnmxp.example', 1, 'forwarded', 3, [], NULL, '198.51.100.53', 9000, NULL, 'dnsmasq-log'),
  ('2026-11-23 14:22:02', 1, '2001:db8:77::10', '00:00:5e:00:53:01', 'mail.example.com', 'example.com', 65, 'timeout', NULL, NULL, NULL, NULL, NULL, NULL, 'passive-dns'),
  ('2026-11-23 14:23:00', 2, '192.168.77.99', NULL, chr(27) || '[31mred' || chr(7) || chr(155) || '.example,"x"', 'red.example', 65400, 'unknown', 17, [chr(27) || ']0;owned' || chr(7)], NULL, chr(8238) || 'gpj', NULL, NULL, 'dnsmasq-log');
INSERT INTO peers (id, dst, name) VALUES
  (1, '203.0.113.5', 'www.example.com'),
  (2, '2001:db8::53', NULL),
  (3, '198.51.100.66', NULL),
  (4, '192.168.77.10', NULL),
  (5, '203.0.113.20', 'cloud.camera.example');
INSERT INTO flows_done
  (time, sensor, proto, src, sport, peer, dport, nat_src, nat_sport, nat_dst, nat_dport, start, duration_ms, bytes_out, bytes_in, packets_out, packets_in, tcp_state, replied, offloaded, iface, mac, name_age_ms) VALUES
  ('2026-11-23 14:20:14', 1, 6, '192.168.77.10', 43164, 1, 443, '203.0.113.1', 43164, NULL, NULL, '2026-11-23 14:20:02', 12000, 1476, 50424, 9, 8, 'TIME_WAIT', true, false, 'br-lan', '00:00:5e:00:53:01', 2000),
  ('2026-11-23 14:24:30', 1, 17, '2001:db8:77::10', 50000, 2, 53, NULL, NULL, NULL, NULL, '2026-11-23 14:24:00', 30000, 120, 240, 2, 2, NULL, true, false, 'br-lan', '00:00:5e:00:53:01', NULL),
  ('2026-11-23 14:25:00', 1, 6, '192.168.77.12', 40000, 3, 4444, NULL, NULL, NULL, NULL, '2026-11-23 14:24:57', 3000, 180, 0, 3, 0, 'SYN_SENT', false, false, 'br-lan', '00:00:5e:00:53:02', NULL),
  ('2026-11-23 13:30:00', 1, 6, '198.51.100.200', 5555, 4, 22, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'ESTABLISHED', true, false, 'wan', NULL, NULL),
  ('2026-11-23 13:10:00', 1, 1, '192.168.77.11', 0, 5, 2048, NULL, NULL, NULL, NULL, '2026-11-23 13:09:59', 1000, 84, 84, 1, 1, NULL, true, false, 'br-lan', NULL, 599000);
INSERT INTO flows_open
  (time, sensor, id, epoch, received, proto, src, sport, dst, dport, nat_src, nat_sport, nat_dst, nat_dport, start, duration_ms, bytes_out, bytes_in, packets_out, packets_in, tcp_state, replied, offloaded, iface, mac, name, name_age_ms) VALUES
  ('2026-11-23 14:31:30', 1, 18446744073709551615, 1, '2026-11-23 14:31:31', 6, '192.168.77.10', 43200, '203.0.113.77', 443, NULL, NULL, NULL, NULL, '2026-11-23 12:00:00', 9090000, 7340032000, 1200000, 5000000, 900000, 'ESTABLISHED', true, true, 'br-lan', '00:00:5e:00:53:01', 'backup.example.net', 1500);
INSERT INTO firewall_hot
  (time, sensor, verdict, prefix, proto, src, sport, dst, dport, in_iface, out_iface, mac, bytes) VALUES
  ('2026-11-23 14:25:10', 1, 'reject', 'agentmon-reject ', 6, '192.168.77.12', 40001, '198.51.100.66', 23, 'br-lan', 'wan', '00:00:5e:00:53:02', 60),
  ('2026-11-23 14:25:11', 1, 'drop', 'drop wan in: ', 58, '2001:db8:ffff::1', 0, '2001:db8:77::10', 32768, 'wan', NULL, NULL, 72);
INSERT INTO gaps
  (time, sensor, collector, since, reason, lost) VALUES
  ('2026-11-23 14:24:00', 1, 'conntrack', '2026-11-23 14:23:30', 'enobufs', 120),
  ('2026-11-23 14:26:00', 2, 'dnsmasq-log', '2026-11-23 13:59:00', 'log-lost', NULL);
INSERT INTO findings (id, time, sensor, rule, subject, client, mac, score, severity, why, evidence, alert) VALUES
  (1, '2026-11-23 14:22:00', 1, 'dga', 'qxkvjzwpfhg.example', '192.168.77.12', '00:00:5e:00:53:02', 0.62, 'high', 'qxkvjzwpfhg.example looks generated and does not exist', '{"entropy":"3.46","rcode":"NXDOMAIN"}', 1),
  (2, '2026-11-23 14:22:01', 1, 'dga', 'zzkqwvbnmxp.example', '192.168.77.12', '00:00:5e:00:53:02', 0.71, 'high', 'zzkqwvbnmxp.example looks generated and does not exist', '{"entropy":"3.46","rcode":"NXDOMAIN"}', 1),
  (3, '2026-11-23 14:25:00', 1, 'direct-ip', '198.51.100.66:4444/tcp', '192.168.77.12', '00:00:5e:00:53:02', 0.5, 'medium', 'connected to 198.51.100.66 port 4444 without asking for a name', '{"grace_s":"30"}', 2),
  (4, '2026-11-23 14:21:00', 1, 'blocklist', 'ads.example.org', '192.168.77.10', NULL, 0.3, 'low', 'ads.example.org stands on a list', '{"list":"ads"}', 3),
  (5, '2026-11-23 14:23:00', 2, 'blocklist', chr(27) || '[2Jevil', '192.168.77.99', NULL, 0.9, 'critical', chr(27) || '[2Jevil' || chr(10) || 'second line', '{"li\u001bst":"\u001b[2J"}', 4),
  (6, '2026-11-23 14:21:30', 1, 'dga', 'mmbvxkqj.example', '192.168.77.12', '00:00:5e:00:53:02', 0.4, 'medium', 'asked for mmbvxkqj.example, which looks generated', '{"value":"0.95"}', 5);
INSERT INTO alerts
  (id, dedup_key, rule, subject, client, mac, first_seen, last_seen, findings, score, severity, why, status, acked_at, ack_note, folded_into) VALUES
  (1, 'dga|192.168.77.12|example', 'dga', 'zzkqwvbnmxp.example', '192.168.77.12', '00:00:5e:00:53:02', '2026-11-23 14:22:00', '2026-11-23 14:22:01', 2, 0.71, 'high', 'zzkqwvbnmxp.example looks generated and does not exist', 'open', NULL, NULL, NULL),
  (2, 'direct-ip|192.168.77.12|198.51.100.66:4444/tcp', 'direct-ip', '198.51.100.66:4444/tcp', '192.168.77.12', '00:00:5e:00:53:02', '2026-11-23 14:25:00', '2026-11-23 14:25:00', 1, 0.5, 'medium', 'connected to 198.51.100.66 port 4444 without asking for a name', 'open', NULL, NULL, NULL),
  (3, 'blocklist|192.168.77.10|ads.example.org', 'blocklist', 'ads.example.org', '192.168.77.10', NULL, '2026-11-22 14:21:00', '2026-11-23 14:21:00', 41, 0.3, 'low', 'ads.example.org stands on a list', 'acked', '2026-11-23 14:30:00', 'known, blocked', NULL),
  (4, 'blocklist|192.168.77.99|evil', 'blocklist', chr(27) || '[2Jevil', '192.168.77.99', NULL, '2026-11-23 14:23:00', '2026-11-23 14:23:00', 1, 0.9, 'critical', chr(27) || '[2Jevil' || chr(10) || 'second line', 'open', NULL, NULL, NULL),
  (5, 'dga|192.168.77.12|mmbvxkqj.example', 'dga', 'mmbvxkqj.example', '192.168.77.12', '00:00:5e:00:53:02', '2026-11-23 14:21:30', '2026-11-23 14:21:30', 1, 0.4, 'medium', 'asked for mmbvxkqj.example, which looks generated', 'folded', NULL, NULL, 1);
INSERT INTO alert_parts
  (alert, rule, subject, first_seen, last_seen, findings, score, worst, why) 
  SELECT id, rule, subject, first_seen, last_seen, findings, score, last_seen, why FROM alerts;
INSERT INTO alert_parts
  (alert, rule, subject, first_seen, last_seen, findings, score, worst, why, followed_at, followed) VALUES
  (2, 'long', '198.51.100.66:4444/tcp', '2026-11-23 14:25:00', '2026-11-23 14:25:00', 1, 0.3, '2026-11-23 14:25:00', 'was connected for 5 h', NULL, NULL),
  (6, 'watched', 'ai.example', '2026-11-23 14:20:30', '2026-11-23 14:20:30', 1, 0.25, '2026-11-23 14:20:30', 'asked for api.ai.example, for the first time: ai.example is watched', NULL, NULL);
INSERT INTO alerts
  (id, dedup_key, topic, rule, subject, client, mac, first_seen, last_seen, findings, score, severity, why, reasons, status, seen_by, devices) VALUES
  (6, '|00:00:5e:00:53:01|ai.example', 'ai.example', 'watched', 'ai.example', '192.168.77.10', '00:00:5e:00:53:01', '2026-11-23 14:20:30', '2026-11-23 14:20:30', 1, 0, 'info', 'asked for api.ai.example, for the first time: ai.example is watched; asked for, not connected', '["asked for, not connected within 5 minutes: a note"]', 'note', 1, 4);
UPDATE alerts SET topic = '198.51.100.66', findings = 2, seen_by = 1, devices = 4,
  reasons = '["direct-ip says 0.50", "long agrees (timing, 0.30): +0.04", "firewall halved: called a false positive elsewhere (feedback 2)"]'
  WHERE id = 2;
INSERT INTO feedback
  (id, kind, made, until, domain, net, device, rule, subject, comment, alert, undone) VALUES
  (1, 'allow', '2026-11-22 10:00:00', '2026-11-29 10:00:00', 'backup.example.net', NULL, '00:00:5e:00:53:01', NULL, NULL, 'our backup', NULL, NULL),
  (2, 'fp', '2026-11-22 11:00:00', NULL, NULL, '198.51.100.66/32', '00:00:5e:00:53:01', 'firewall', NULL, chr(27) || '[2Jmine', 2, NULL),
  (3, 'allow', '2026-11-20 10:00:00', '2026-11-21 10:00:00', NULL, NULL, NULL, 'dga', NULL, 'over', NULL, NULL),
  (4, 'allow', '2026-11-20 10:00:00', NULL, 'example.org', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-20 11:00:00');
INSERT INTO processes
  (time, sensor, phase, process, parent, host, os, pid, name, exe, deleted, argv, user_name, ancestors) VALUES
  ('2026-11-23 14:19:58', 1, 'start', 77, 70, 'laptop', 'linux', 412, 'claude-code', '/usr/bin/claude', false, ['claude', '--print', 'hello'], 'ada', '[{"name":"zsh","pid":300}]'),
  ('2026-11-23 14:25:50', 1, 'start', 78, 77, 'laptop', 'linux', 413, 'curl', '/usr/bin/curl', false, ['curl', 'https://x.example'], 'ada', '[{"name":"claude-code","pid":412}]');
INSERT INTO process_conns
  (time, sensor, id, open, process, pid, name, direction, proto, src, sport, dst, dport, start, duration_ms, bytes_out, bytes_in, how) VALUES
  ('2026-11-23 14:20:02', 1, 501, true, 77, 412, 'claude-code', 'out', 6, '192.168.77.10', 43164, '203.0.113.5', 443, '2026-11-23 14:20:02', NULL, NULL, NULL, 'exec'),
  ('2026-11-23 14:20:14', 1, 501, false, 77, 412, 'claude-code', 'out', 6, '192.168.77.10', 43164, '203.0.113.5', 443, '2026-11-23 14:20:02', 12000, 1476, 50424, 'exec'),
  ('2026-11-23 14:26:03', 1, 502, false, 78, 413, 'curl', 'out', 6, '192.168.77.10', 50100, '203.0.113.99', 443, '2026-11-23 14:26:00', 3000, 900, 4000, 'exec');
CHECKPOINT;
-- What is normal: the laptop is known for nine days, the phone since yesterday, an address
-- without a device for three.
INSERT INTO habits BY NAME
  SELECT who, kind, what, first_seen::TIMESTAMP AS first_seen,
    ('2026-11-23'::DATE - '1970-01-01'::DATE)::INTEGER AS day, bits FROM (VALUES
  ('*', 'day', '', '2026-11-15 00:00:00', 511::UBIGINT),
  ('*', 'domain', 'example.com', '2026-11-15 08:00:00', 511),
  ('*', 'domain', 'fresh.example', '2026-11-23 14:02:00', 1),
  ('*', 'place', '203.0.113.0/24', '2026-11-15 08:00:00', 511),
  ('00:00:5e:00:53:01', 'day', '', '2026-11-15 08:00:00', 511),
  ('00:00:5e:00:53:01', 'domain', 'example.com', '2026-11-15 08:00:00', 511),
  ('00:00:5e:00:53:01', 'domain', 'fresh.example', '2026-11-23 14:02:00', 1),
  ('00:00:5e:00:53:01', 'place', '203.0.113.0/24', '2026-11-15 08:00:00', 341),
  ('00:00:5e:00:53:01', 'port', '443/tcp', '2026-11-15 08:00:00', 511),
  ('00:00:5e:00:53:01', 'hour', 'weekday 14', '2026-11-16 14:00:00', 31),
  ('00:00:5e:00:53:02', 'day', '', '2026-11-22 10:00:00', 3),
  ('00:00:5e:00:53:02', 'domain', 'example.com', '2026-11-23 13:30:00', 1),
  ('192.168.77.99', 'day', '', '2026-11-21 10:00:00', 7),
  ('192.168.77.99', 'domain', chr(27) || '[2Jevil', '2026-11-23 14:23:00', 1)
  ) v(who, kind, what, first_seen, bits);
INSERT INTO hours BY NAME
  SELECT '00:00:5e:00:53:01' AS who, '2026-11-20 14:00:00'::TIMESTAMP + to_days(n::INTEGER) AS hour,
    1000000 * (n + 1) AS up, 90000000 AS down, 40 AS flows, 60 AS questions,
    CASE WHEN n = 3 THEN 1 ELSE 0 END AS odd FROM range(4) t(n);
INSERT INTO alerts
  (id, dedup_key, topic, rule, subject, client, mac, first_seen, last_seen, findings, score, severity, why, reasons, status, seen_by, devices) VALUES
  (7, '|00:00:5e:00:53:02|updates.example', 'updates.example', 'beacon', 'updates.example', '192.168.77.12', '00:00:5e:00:53:02', '2026-11-23 14:10:00', '2026-11-23 14:10:00', 1, 0.6, 'high', 'calls updates.example about every 5 min, 288 times, give or take 2 %', '["found while learning: kept, not told"]', 'learning', 1, 4);
INSERT INTO alert_parts
  (alert, rule, subject, first_seen, last_seen, findings, score, worst, why, learning) VALUES
  (7, 'beacon', 'updates.example', '2026-11-23 14:10:00', '2026-11-23 14:10:00', 1, 0.6, '2026-11-23 14:10:00', 'calls updates.example about every 5 min, 288 times, give or take 2 %', true);
-- What Zeek's logs say, and a list that has one of the names.
INSERT INTO zeek_conn BY NAME SELECT 1 AS sensor, 'C' || n AS uid,
    '2026-11-23 10:00:00'::TIMESTAMP + to_minutes((n * 10)::INTEGER) AS time, '192.168.77.12' AS src, 6 AS proto, 40000 + n AS sport, 443 AS dport,
    '203.0.113.8' AS dst, 30000000 AS bytes_out, 500 AS bytes_in, 1.0 AS duration, false AS open
  FROM range(3) t(n);
INSERT INTO zeek_name BY NAME SELECT 1 AS sensor, 'C' || n AS uid, 'listed.example' AS name,
    'tls' AS source FROM range(3) t(n);
INSERT INTO indicators (list, entry, kind, value, added, gone) VALUES
  ('threats', 'listed.example', 'name', 'listed.example', '2026-11-20', NULL),
  ('threats', 'gone.example', 'name', 'gone.example', '2026-11-20', '2026-11-21');
