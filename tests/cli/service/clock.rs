//! The service's clock, in the hands of a test.

use super::Service;
use crate::project::Project;

/// The time as the service sees it.
pub struct Clock<'a> {
    project: &'a Project,
}

impl<'a> Clock<'a> {
    pub fn at(project: &'a Project, now: &str) -> Self {
        let clock = Self { project };
        clock.set(now);
        clock
    }

    pub fn set(&self, now: &str) {
        // renamed into place: the service never reads half of it
        self.project.write("clock.new", now);
        std::fs::rename(self.project.path().join("clock.new"), self.project.path().join("clock")).unwrap();
    }

    pub fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Service {
        let file = self.project.path().join("clock");
        let mut all = vec![("CLOUD_CONNECT_CLOCK_FILE", file.to_str().unwrap())];
        all.extend(variables);
        Service::start_with(self.project, &[&["--schedule-jitter", "0s"], arguments].concat(), &all)
    }
}
