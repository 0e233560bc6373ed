//! Starts in which the database, or the file, can't be read or written: the next start gives no number again.

use std::path::PathBuf;

use super::*;

/// What [`Store`] writes where each file belongs, before it takes its place.
const PARTS: [&str; 2] = ["message-numbers.part", "message-numbers-ahead.part"];
/// Nothing new is counted, and no log is opened.
const FULL: &str = "
    CREATE TRIGGER full_counter BEFORE INSERT ON counter
    BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;
    CREATE TRIGGER full_log BEFORE INSERT ON log
    BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;";
const ROOM: &str = "DROP TRIGGER full_counter; DROP TRIGGER full_log;";

fn live() -> Node {
    Node::new([Some(Delivery::Live), None])
}

impl Node {
    fn execute(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.path().join("agent.db")).unwrap();
        database.execute_batch(sql).unwrap();
    }

    /// The bound that the database has.
    fn bound(&self) -> u64 {
        let database = rusqlite::Connection::open(self.path().join("agent.db")).unwrap();
        let sql = "SELECT value FROM counter WHERE name = 'numbers_bound'";
        let bound: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        bound.try_into().unwrap()
    }

    fn in_file(&self) -> u64 {
        let text = std::fs::read_to_string(self.path().join("message-numbers"));
        text.unwrap().parse().unwrap()
    }

    /// Has something stand where the database belongs; what is there is put beside it.
    fn take_database_away(&self) -> Vec<(PathBuf, PathBuf)> {
        let moved = FILES.into_iter().filter_map(|file| {
            let (from, to) = (self.path().join(file), self.path().join("kept").join(file));
            std::fs::create_dir_all(self.path().join("kept")).unwrap();
            std::fs::rename(&from, &to).ok()?;
            Some((from, to))
        });
        let moved = moved.collect();
        std::fs::create_dir(self.path().join("agent.db")).unwrap();
        moved
    }

    fn bring_database_back(&self, moved: Vec<(PathBuf, PathBuf)>) {
        std::fs::remove_dir(self.path().join("agent.db")).unwrap();
        for (from, to) in moved {
            std::fs::rename(to, from).unwrap();
        }
    }

    /// A start of an agent whose logs can't be opened. It is tried again, as with every status.
    async fn start_in_trouble(&self) -> Running {
        let mut running = Running::with(Store::open_or_lack(self.path()).unwrap());
        for _ in 0..3 {
            assert!(running.open(&self.wanted).await.is_err());
        }
        running
    }
}

#[tokio::test]
async fn numbers_do_not_go_back_after_starts_without_the_database() {
    for in_order in [true, false] {
        let mut node = live();
        let running = node.start().await;
        node.publish(&running, 0, 10).await;
        running.end(true).await;
        let database = node.take_database_away();
        for _ in 0..2 {
            let running = node.start_in_trouble().await;
            let before = node.last[0];
            node.publish(&running, 0, 10).await;
            let skipped = node.last[0] - before;
            assert!(skipped < 2 * AHEAD, "{skipped}: it is tried again");
            running.end(in_order).await;
        }
        node.bring_database_back(database);
        let running = node.start().await;
        node.publish(&running, 0, 10).await;
        running.end(true).await;
        let running = node.start().await;
        node.publish(&running, 0, 10).await;
        running.end(true).await;
    }
}

#[tokio::test]
async fn numbers_do_not_go_back_after_a_start_with_a_database_that_can_not_be_written() {
    let mut node = Node::new([Some(Delivery::Live), Some(Delivery::Durable)]);
    let running = node.start().await;
    node.publish(&running, 0, 10).await;
    running.end(true).await;
    node.execute(FULL);
    let running = node.start_in_trouble().await;
    node.publish(&running, 0, 10).await;
    running.end(true).await;
    node.execute(ROOM);
    let running = node.start().await;
    node.publish(&running, 0, 10).await;
    running.end(true).await;

    // The disk has room again while the agent runs.
    node.execute(FULL);
    let mut running = node.start_in_trouble().await;
    node.publish(&running, 0, 10).await;
    node.execute(ROOM);
    running.open(&node.wanted).await.unwrap();
    node.publish(&running, 0, 10).await;
    running.end(true).await;
    assert_eq!(node.bound(), node.in_file(), "it is no older copy");
    let running = node.start().await;
    node.publish(&running, 0, 10).await;
    running.end(true).await;
}

/// A backlog that would be numbered again would be written again, and would come twice.
#[tokio::test]
async fn what_waits_keeps_its_numbers_when_a_start_could_not_write_the_database() {
    let mut node = Node::new([Some(Delivery::Live), Some(Delivery::Durable)]);
    let running = node.start().await;
    node.publish(&running, 1, 10).await;
    running.end(true).await;
    for _ in 0..2 {
        node.execute(FULL);
        let running = node.start_in_trouble().await;
        node.publish(&running, 0, 10).await;
        running.end(false).await;
        node.execute(ROOM);
        let running = node.start().await;
        let waits = node.last[1];
        node.publish(&running, 1, 10).await;
        assert_eq!(node.last[1], waits + 10, "nothing is skipped");
        node.publish(&running, 0, 10).await;
        running.end(true).await;
    }
}

#[tokio::test]
async fn where_nothing_can_be_written_no_numbers_are_skipped_that_the_next_start_would_give() {
    let mut node = Node::new([Some(Delivery::Live), Some(Delivery::Durable)]);
    let running = node.start().await;
    node.publish(&running, 0, 10).await;
    running.end(true).await;
    node.execute(FULL);
    for part in PARTS {
        std::fs::create_dir(node.path().join(part)).unwrap();
    }
    let running = node.start_in_trouble().await;
    node.publish(&running, 0, 10).await;
    assert_eq!(node.last[0], 20);
    running.end(true).await;
}

#[tokio::test]
async fn a_file_that_can_not_be_written_costs_the_database_nothing_more() {
    let mut node = live();
    std::fs::create_dir(node.path().join(PARTS[0])).unwrap();
    let mut running = node.start().await;
    let bound = node.bound();
    let Running {
        store,
        registry,
        numbers,
        ..
    } = &mut running;
    for _ in 0..3 {
        numbers.files.again = None; // its pause is over
        numbers.reserve(store, registry).await;
    }
    assert_eq!(
        (node.bound(), store.kept_number(KeptNumber::Noted)),
        (bound, 0)
    );
    std::fs::remove_dir(node.path().join(PARTS[0])).unwrap();
    numbers.reserve(store, registry).await;
    assert_eq!(
        store.kept_number(KeptNumber::Noted),
        0,
        "not before the pause is over"
    );
    numbers.files.again = None;
    numbers.reserve(store, registry).await;
    assert_eq!(store.kept_number(KeptNumber::Noted), bound);
    assert_eq!(node.in_file(), bound);
    node.publish(&running, 0, 10).await;
    running.end(true).await;
}

#[tokio::test]
async fn numbers_are_looked_after_from_the_first_assignment_on() {
    let node = live();
    let running = node.start().await;
    assert!(running.numbers.wake().is_some());
    running.end(true).await;
}
