//! Files of every version, locked ones, and any values in them.

use super::*;
use proptest::prelude::*;

#[test]
fn a_locked_database_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pihole-FTL.db");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(
            "CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB); INSERT INTO ftl VALUES (0, 1);
             CREATE TABLE queries (id INTEGER PRIMARY KEY, timestamp INTEGER, type INTEGER,
                status INTEGER, domain TEXT, client TEXT); BEGIN EXCLUSIVE",
        )
        .unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = Connection::open_with_flags(&path, flags).unwrap();
    reader.busy_timeout(Duration::ZERO).unwrap();
    let error = Layout::of(&reader).err().unwrap();
    assert!(format!("{error:#}").contains("it is locked"), "{error:#}");
    writer.execute_batch("COMMIT").unwrap();
    assert!(Layout::of(&reader).is_ok());
}

/// The tables of devices as FTL's upgrades leave them: three devices, of which one has no MAC.
const NETWORK: [(i64, &str); 4] = [
    // One row for each MAC and address, with their name.
    (
        3,
        "CREATE TABLE network (id INTEGER PRIMARY KEY NOT NULL, ip TEXT NOT NULL,
            hwaddr TEXT NOT NULL, interface TEXT NOT NULL, name TEXT, firstSeen INTEGER NOT NULL,
            lastQuery INTEGER NOT NULL, numQueries INTEGER NOT NULL, macVendor TEXT);
         INSERT INTO network VALUES
            (1, '192.0.2.7', '00:00:5e:00:53:01', 'eth0', 'laptop.lan', 1, 1700000000, 5, 'x'),
            (2, '2001:db8::7', '00:00:5e:00:53:01', 'eth0', NULL, 1, 1700000010, 5, 'x'),
            (3, '192.0.2.9', 'ip-192.0.2.9', 'eth0', 'tv', 1, 1700000020, 5, '')",
    ),
    // Addresses in a table of their own, the name still with the MAC.
    (
        5,
        "CREATE TABLE network (id INTEGER PRIMARY KEY NOT NULL, hwaddr TEXT UNIQUE NOT NULL,
            interface TEXT NOT NULL, name TEXT, firstSeen INTEGER NOT NULL,
            lastQuery INTEGER NOT NULL, numQueries INTEGER NOT NULL, macVendor TEXT);
         CREATE TABLE network_addresses (network_id INTEGER NOT NULL, ip TEXT NOT NULL,
            lastSeen INTEGER NOT NULL, UNIQUE (network_id, ip));
         INSERT INTO network VALUES
            (1, '00:00:5e:00:53:01', 'eth0', 'laptop.lan', 1, 1700000000, 5, 'x'),
            (2, 'ip-192.0.2.9', 'eth0', 'tv', 1, 1700000020, 5, '');
         INSERT INTO network_addresses VALUES (1, '192.0.2.7', 1700000000),
            (1, '2001:db8::7', 1700000010), (2, '192.0.2.9', 1700000020)",
    ),
    // The name with the address.
    (
        8,
        "CREATE TABLE network (id INTEGER PRIMARY KEY NOT NULL, hwaddr TEXT UNIQUE NOT NULL,
            interface TEXT NOT NULL, firstSeen INTEGER NOT NULL, lastQuery INTEGER NOT NULL,
            numQueries INTEGER NOT NULL, macVendor TEXT);
         CREATE TABLE network_addresses (network_id INTEGER NOT NULL, ip TEXT UNIQUE NOT NULL,
            lastSeen INTEGER NOT NULL, name TEXT, nameUpdated INTEGER);
         INSERT INTO network VALUES (1, '00:00:5e:00:53:01', 'eth0', 1, 1700000000, 5, 'x'),
            (2, 'ip-192.0.2.9', 'eth0', 1, 1700000020, 5, '');
         INSERT INTO network_addresses VALUES (1, '192.0.2.7', 1700000000, 'laptop.lan', 1),
            (1, '2001:db8::7', 1700000010, NULL, NULL), (2, '192.0.2.9', 1700000020, 'tv', 1)",
    ),
    // And one that is not known yet.
    (
        99,
        "CREATE TABLE network (id INTEGER PRIMARY KEY, hwaddr TEXT, interface TEXT, more BLOB);
         CREATE TABLE network_addresses (network_id INTEGER, ip TEXT, lastSeen REAL, name TEXT,
            more BLOB);
         INSERT INTO network VALUES (1, '00:00:5e:00:53:01', 'eth0', x'00');
         INSERT INTO network_addresses VALUES (1, '192.0.2.7', 1700000000.0, 'laptop.lan', 1),
            (1, '2001:db8::7', 1700000010.0, NULL, x'ff')",
    ),
];

#[test]
fn devices_of_every_version() {
    for (version, sql) in NETWORK {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        let rows = format!(
            "CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB);
             INSERT INTO ftl VALUES (0, {version}), (2, 1600000000);
             CREATE TABLE queries (id INTEGER PRIMARY KEY, timestamp INTEGER, type INTEGER,
                status INTEGER, domain TEXT, client TEXT, even_more TEXT)"
        );
        connection.execute_batch(&rows).unwrap();
        let found = Database::read(connection).unwrap().devices().unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|event| match &event.body {
                Body::Device(d) => (
                    event.time.secs(),
                    format!("{} {} {:?} {:?}", d.mac, d.ip, d.hostname, d.iface),
                ),
                other => panic!("{other:?}"),
            })
            .collect();
        let (first, second) = (shown[0].clone(), shown[1].clone());
        let named = r#"00:00:5e:00:53:01 192.0.2.7 Some("laptop.lan") Some("eth0")"#;
        assert_eq!(first, (1_700_000_000, named.into()), "version {version}");
        // In version 5 to 7 the name is that of the device, and so of each of its addresses.
        let name = if version == 5 { r#"Some("laptop.lan")"# } else { "None" };
        let other = format!(r#"00:00:5e:00:53:01 2001:db8::7 {name} Some("eth0")"#);
        assert_eq!(second, (1_700_000_010, other), "version {version}");
        assert_eq!(shown.len(), 2, "one without a MAC names none: {shown:?}");
    }
}

proptest! {
    /// Any values in any column.
    #[test]
    fn any_row_never_panics(
        time: f64,
        kind: i64,
        status: i64,
        name in prop::collection::vec(any::<u8>(), 0..300),
        client in ".{0,40}",
        reply: i64,
        seconds: f64,
    ) {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "SELECT 1, ?1, ?2, ?3, ?4, ?5, ?4, ?5, ?6, ?7";
        let values = rusqlite::params![time, kind, status, name, client, reply, seconds];
        let mut statement = connection.prepare(sql).unwrap();
        let mut rows = statement.query(values).unwrap();
        let raw = raw(rows.next().unwrap().unwrap(), Timestamp::from_secs(1_795_444_327)).unwrap();
        prop_assert_eq!(raw.id, 1);
    }
}
