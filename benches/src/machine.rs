//! The machine under the measurement: processors, and who used them.
//!
//! Reads `/proc`, so Linux only. Times of a process are exact sums rounded to the kernel's ticks;
//! over a second that is a hundredth.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

/// Ticks a second in `/proc`: `USER_HZ`, part of the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs `work` with this thread, and what it spawns, on one processor; puts the old set back after.
///
/// # Errors
/// A processor that is not there.
pub fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    pin(cpu)?;
    let result = work();
    sched_setaffinity(None, &before)?;
    Ok(result)
}

/// Keeps this thread, and what it spawns, on one processor.
///
/// # Errors
/// A processor that is not there.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

/// Makes this thread's sleeps end on time instead of up to 50 us late.
///
/// # Errors
/// A kernel without timer slack.
pub fn sleep_precisely() -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?)
}

/// Asks a process to end (SIGTERM).
///
/// # Errors
/// A process that is gone.
pub fn terminate(process: u32) -> io::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// Processor time of a process so far, user and system, all threads.
///
/// # Errors
/// A process that is gone.
pub fn process_time(process: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the name in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Memory of a process that is resident now, in KiB.
///
/// # Errors
/// A process that is gone.
pub fn resident_kib(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    Ok(status_field(&status, "VmRSS:"))
}

/// How often the threads of a process gave up a processor or lost it, so far.
///
/// # Errors
/// A process that is gone.
pub fn context_switches(process: u32) -> io::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between being listed and being read.
        let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += status_field(&status, "voluntary_ctxt_switches:");
        switches += status_field(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(switches)
}

fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Time of all processors so far, summed over them.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineTime {
    /// Spent on any process or interrupt.
    pub busy: Duration,
    /// Taken by the hypervisor for another machine.
    pub steal: Duration,
}

/// Reads the time of all processors.
///
/// # Errors
/// A machine without `/proc`.
pub fn machine_time() -> io::Result<MachineTime> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; the guest times after them are in user already
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let &[user, nice, system, _, _, irq, softirq, steal] = ticks.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/proc/stat is not what it was"));
    };
    let duration = |ticks: f64| Duration::from_secs_f64(ticks / TICKS_PER_SECOND);
    Ok(MachineTime { busy: duration(user + nice + system + irq + softirq), steal: duration(steal) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_read() {
        let me = std::process::id();
        assert!(resident_kib(me).expect("we are alive") > 100);
        process_time(me).expect("we are alive");
        context_switches(me).expect("we are alive");
        assert!(machine_time().expect("Linux").busy > Duration::ZERO);
    }

    #[test]
    fn pinning_ends_with_the_work() {
        let before = sched_getaffinity(None).expect("Linux");
        let pinned =
            on_cpu(0, || sched_getaffinity(None).expect("Linux").count()).expect("there is a processor");
        assert_eq!(pinned, 1);
        assert_eq!(sched_getaffinity(None).expect("Linux"), before);
    }
}
