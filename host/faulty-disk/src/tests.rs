//! The disk does what it says to a plain database.

use rusqlite::Connection;

use super::*;

fn open(directory: &Path) -> Connection {
    let connection = Connection::open(directory.join("a.db")).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    connection
        .pragma_update(None, "synchronous", "FULL")
        .unwrap();
    connection
}

fn rows(connection: &Connection) -> i64 {
    let count = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    count.unwrap()
}

fn add(connection: &Connection) -> rusqlite::Result<()> {
    let added = connection.execute("INSERT INTO t VALUES (zeroblob(3000))", []);
    added.map(drop)
}

/// A disk with a database that has one row, and where its operations stand.
fn scene() -> (tempfile::TempDir, Disk, Connection, usize) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::of(directory.path());
    let connection = open(directory.path());
    connection.execute("CREATE TABLE t (v)", []).unwrap();
    add(&connection).unwrap();
    let operations = disk.operations().len();
    (directory, disk, connection, operations)
}

#[test]
fn after_a_death_nothing_reaches_a_file() {
    let (directory, disk, connection, operations) = scene();
    disk.fail_at(operations + 1, Failure::Death);
    assert!(add(&connection).is_err());
    assert!(add(&connection).is_err());
    drop(connection);
    disk.repair();
    assert_eq!(rows(&open(directory.path())), 1);
}

#[test]
fn what_was_not_synced_is_lost_with_the_power() {
    let (directory, disk, connection, _) = scene();
    connection
        .pragma_update(None, "synchronous", "NORMAL")
        .unwrap();
    for _ in 0..20 {
        add(&connection).unwrap();
    }
    disk.fail_at(disk.operations().len(), Failure::Death);
    drop(connection);
    disk.cut_power(3);
    let left = rows(&open(directory.path()));
    assert!((1..20).contains(&left), "{left} rows are left");
}

#[test]
fn a_sync_that_failed_is_told_and_what_it_was_for_is_lost_with_the_power() {
    let (directory, disk, connection, operations) = scene();
    disk.fail_at(operations, Failure::EverySync);
    assert!(add(&connection).is_err());
    disk.fail_at(disk.operations().len(), Failure::Death);
    drop(connection);
    disk.cut_power(3);
    assert_eq!(rows(&open(directory.path())), 1);
}

#[test]
fn a_full_disk_has_room_again() {
    let (_directory, disk, connection, operations) = scene();
    disk.fail_at(operations + 1, Failure::Full);
    assert!(add(&connection).is_err());
    add(&connection).unwrap();
    assert_eq!(rows(&connection), 2);
}

#[test]
fn a_directory_that_nobody_watches_is_as_before() {
    let (_directory, disk, _connection, operations) = scene();
    let other = tempfile::tempdir().unwrap();
    let connection = open(other.path());
    connection.execute("CREATE TABLE t (v)", []).unwrap();
    add(&connection).unwrap();
    assert_eq!(
        (rows(&connection), disk.operations().len()),
        (1, operations)
    );
}
