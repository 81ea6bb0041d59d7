//! A control group that bounds the memory of a process, as a container's limit does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A control group of its own. It is removed when dropped.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// One with this limit in bytes, below the group of this process. `None` where this process may
    /// not make one: it needs root, and cgroup v1 or a delegated memory controller of v2.
    pub(crate) fn new(limit: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").expect("control groups");
        let folder = |name: &str| {
            let (_, path) = groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                (controllers == name).then_some((controllers, path))
            })?;
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let own = format!("claviger-{}-{number}", std::process::id());
            let mount = Path::new("/sys/fs/cgroup").join(name);
            Some(mount.join(path.trim_start_matches('/')).join(own))
        };
        let (group, file) = match folder("memory") {
            Some(group) => (group, "memory.limit_in_bytes"),
            None => (folder("")?, "memory.max"),
        };
        fs::create_dir(&group).ok()?;
        let group = Self(group);
        fs::write(group.0.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    /// The file that takes the IDs of the processes in the group.
    pub(crate) fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its process has ended, but the kernel may take a moment to see that.
        super::wait::until("the control group is removed", || {
            fs::remove_dir(&self.0).map_err(|error| error.to_string())
        });
    }
}
