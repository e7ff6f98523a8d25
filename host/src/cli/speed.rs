//! How fast a recording is played: `1` as it was received, `10` ten times as fast, `max` unpaced.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was received; above 0.
    Times(f64),
    /// As fast as it is read.
    Max,
}

impl Speed {
    /// When a message is due that was received so long after the first; `None` is at once.
    pub fn due(self, after_first: Duration) -> Option<Duration> {
        match self {
            Self::Times(times) => Duration::try_from_secs_f64(after_first.as_secs_f64() / times).ok(),
            Self::Max => None,
        }
    }
}

impl FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.parse().ok().filter(|times: &f64| times.is_finite() && *times > 0.0);
        times.map(Self::Times).ok_or("a number above 0, or max")
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(f, "{times}"),
            Self::Max => f.write_str("max"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_and_divide_the_time() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
        let ten = Duration::from_secs(10);
        assert_eq!(Speed::Times(4.0).due(ten), Some(Duration::from_millis(2500)));
        assert_eq!(Speed::Max.due(ten), None);
    }
}
