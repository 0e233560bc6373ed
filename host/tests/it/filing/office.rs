//! A node on whose files microservices work as a test tells them, in words of the guest `files`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haar_conformance_artifacts as artifacts;
use haar_protocol::assignment::{Assignment, Microservice};
use haar_protocol::log::Stream;
use haar_protocol::quantity::ByteSize;
use haar_protocol::status::{State, Status};

use crate::driver::Driver;
use crate::node::{Node, microservice, route};
use crate::site::Site;

/// A node with microservices that do with files what they are told.
pub(super) struct Office {
    pub(super) site: Site,
    pub(super) node: Node,
    driver: Driver,
    pub(super) assignment: Assignment,
    asked: u32,
}

impl Office {
    /// Microservices called as given, each with what `grant` gives it.
    pub(super) async fn open(names: &[&str], grant: impl Fn(&mut Microservice)) -> Self {
        Self::looking(names, Duration::from_secs(60), grant).await
    }

    /// The same, and they look at their directories again after a pause.
    pub(super) async fn looking(
        names: &[&str],
        pause: Duration,
        grant: impl Fn(&mut Microservice),
    ) -> Self {
        let site = Site::start().await;
        let (mut node, other) = (Node::enrol(&site, "one"), Node::enrol(&site, "other"));
        node.look_pause = pause;
        let module = node.install(&artifacts::read(artifacts::FILES), &site.publisher);
        let mut assignment = node.assignment(&site, 1);
        for name in names {
            let mut files = microservice(name, module, &["out"], &["in"]);
            // Answers are lines, and some questions are asked again and again.
            files.limits.log_lines_per_second = 10_000;
            files.limits.log_bytes_per_second = ByteSize(16 << 20);
            grant(&mut files);
            for directory in &files.grants.directories {
                let path = Path::new(&directory.host);
                node.rules = node.rules.clone().allowing(path, directory.access);
            }
            assignment.microservices.push(files);
            let ends = (other.port("driver", "out"), node.port(name, "in"));
            assignment.routes.push(route(ends.0, ends.1));
        }
        assignment.peers = vec![other.peer()];
        node.start();
        site.assign(&assignment).await;
        let driver = Driver::connect(&site, &other).await;
        let office = Self {
            site,
            node,
            driver,
            assignment,
            asked: 0,
        };
        office.until_all_run().await;
        office
    }

    pub(super) async fn until_all_run(&self) -> Status {
        let all_run = |status: &Status| {
            status.applied == self.assignment.number
                && self.assignment.microservices.iter().all(|spec| {
                    status.microservices.iter().any(|one| {
                        one.name == spec.name
                            && one.state == State::Running
                            && one.module == spec.module
                    })
                })
        };
        self.site.status(&self.node.id, all_run).await
    }

    /// Tells a microservice what to do, and waits for nothing. Returns the mark of its answer.
    pub(super) async fn tell(&mut self, name: &str, command: &str) -> String {
        self.asked += 1;
        let tag = format!("#{}", self.asked);
        let ends = self
            .assignment
            .routes
            .iter()
            .find(|route| route.to.microservice.microservice.as_str() == name)
            .unwrap();
        let body = format!("{tag} {command}");
        self.driver.send(&self.node, ends.id, &body).await;
        tag
    }

    /// Tells a microservice what to do. What came of it, or the error.
    pub(super) async fn ask(&mut self, name: &str, command: &str) -> Result<String, String> {
        let tag = self.tell(name, command).await;
        let (ok, error) = (format!("{tag} ok "), format!("{tag} error "));
        let line = self
            .site
            .line(&self.node.id, |line| {
                line.stream == Stream::Log
                    && (line.text.starts_with(&ok) || line.text.starts_with(&error))
            })
            .await;
        match line.text.strip_prefix(&ok) {
            Some(text) => Ok(text.to_owned()),
            None => Err(line.text[error.len()..].to_owned()),
        }
    }

    pub(super) fn private(&self, name: &str) -> PathBuf {
        self.node.data.path().join("private/app").join(name)
    }

    pub(super) async fn close(mut self) {
        self.node.stop().await;
    }
}

/// Tells others that it is over, also when a test fails: they would go on for ever.
pub(super) struct Told<'a>(pub(super) &'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
