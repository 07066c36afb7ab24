//! Owns which processors a load and what it loads may use: half of them each. Where they share, the scheduler decides what is
//! measured: on two processors it moves four busy threads between caches, and a veth pair drops what it holds while its softirq
//! waits for its turn on the processor it began on. Never leaves this thread restricted, nor restricts a process that is not
//! of the bench.

use std::fs;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::lab::netns::{Netns, run};

/// In force until it is dropped.
#[derive(Debug)]
pub struct Apart {
    before: CpuSet,
}

impl Apart {
    /// Gives the processes in some namespaces the first half of the processors, and this thread, with those it starts from
    /// now on, the other. None: there are no such processes, or too few processors.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(spaces: &[Netns]) -> Result<Option<Apart>> {
        let before = sched_getaffinity(None).context("processors of this thread")?;
        let Some([theirs, ours]) = halves(&before) else { return Ok(None) };
        let mut found = false;
        for space in spaces {
            for pid in run(&["ip", "netns", "pids", space.name()], None)?.split_whitespace() {
                found = true;
                restrict(pid, &theirs).with_context(|| format!("processors of process {pid}"))?;
            }
        }
        if !found {
            return Ok(None);
        }
        sched_setaffinity(None, &ours).context("processors of this thread")?;
        Ok(Some(Apart { before }))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.before) {
            eprintln!("this thread stays on its half of the processors: {error}");
        }
    }
}

/// The processors of a set in two halves, the first of which is not larger.
fn halves(all: &CpuSet) -> Option<[CpuSet; 2]> {
    let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&number| all.is_set(number)).collect();
    let (first, second) = numbers.split_at(numbers.len() / 2);
    let set = |numbers: &[usize]| {
        let mut set = CpuSet::new();
        numbers.iter().for_each(|&number| set.set(number));
        set
    };
    (!first.is_empty()).then(|| [set(first), set(second)])
}

/// Restricts all threads of a process; those it starts later are their children.
fn restrict(pid: &str, to: &CpuSet) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let number = thread?.file_name().to_string_lossy().parse()?;
        match sched_setaffinity(Pid::from_raw(number), to) {
            // It ended meanwhile.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_halved_and_one_cannot_be() {
        let mut all = CpuSet::new();
        assert!(halves(&all).is_none());
        all.set(3);
        assert!(halves(&all).is_none());
        all.set(4);
        all.set(9);
        let [first, second] = halves(&all).unwrap();
        let numbers = |set: &CpuSet| (0..16).filter(|&number| set.is_set(number)).collect::<Vec<_>>();
        assert_eq!((numbers(&first), numbers(&second)), (vec![3], vec![4, 9]));
    }
}
