//! Dates and times of entries: from 1980 to 2107, in steps of two seconds.

use crate::tree::Timestamp;

const DAY: i64 = 86_400;
const FIRST_YEAR: i64 = 1980;
const LAST_YEAR: i64 = 2107;

/// Date and time of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) date: u16,
    pub(super) time: u16,
}

impl Stamp {
    /// `None` outside of the years that FAT has.
    pub(super) fn of(at: Timestamp) -> Option<Self> {
        let (year, month, day) = civil(at.seconds.div_euclid(DAY));
        if !(FIRST_YEAR..=LAST_YEAR).contains(&year) {
            return None;
        }
        let second = at.seconds.rem_euclid(DAY);
        let date = (year - FIRST_YEAR) << 9 | month << 5 | day;
        let time = (second / 3600) << 11 | (second / 60 % 60) << 5 | (second % 60 / 2);
        Some(Self {
            date: u16::try_from(date).ok()?,
            time: u16::try_from(time).ok()?,
        })
    }

    /// Numbers that no calendar has are taken as Linux takes them: carried over, or the first.
    pub(super) fn timestamp(self) -> Timestamp {
        let (date, time) = (i64::from(self.date), i64::from(self.time));
        let month = (date >> 5 & 15).clamp(1, 12);
        let day = (date & 31).max(1);
        let days = days(FIRST_YEAR + (date >> 9), month, day);
        let seconds = (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2;
        Timestamp::from_seconds(days * DAY + seconds)
    }
}

/// Days since 1970 of a date; years are counted from March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + of_year - 719_468
}

/// Year, month and day so many days after 1970-01-01.
fn civil(days_since: i64) -> (i64, i64, i64) {
    // Far beyond any year that matters, and small enough to calculate with.
    let days_since = days_since.clamp(-1 << 40, 1 << 40);
    let mut year = 1970 + days_since.div_euclid(366);
    let mut low = year.min(1970 + days_since.div_euclid(365));
    let mut high = year.max(1970 + days_since.div_euclid(365)) + 1;
    while low < high {
        year = low + (high - low) / 2;
        if days(year + 1, 1, 1) <= days_since {
            low = year + 1;
        } else {
            high = year;
        }
    }
    let month = (1..=12)
        .rev()
        .find(|month| days(low, *month, 1) <= days_since)
        .unwrap_or(1);
    (low, month, days_since - days(low, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_itself() {
        // 1980-01-01 to 2107-12-31.
        for day in 3652..50_403 {
            let at = Timestamp::from_seconds(day * DAY + day * 2 % DAY);
            let stamp = Stamp::of(at).unwrap();
            assert_eq!(stamp.timestamp(), at);
        }
        for outside in [3651, 50_403, -1, i64::MAX / DAY, i64::MIN / DAY] {
            assert_eq!(Stamp::of(Timestamp::from_seconds(outside * DAY)), None);
        }
        // 2024-02-29 12:34:57
        let stamp = Stamp::of(Timestamp::from_seconds(1_709_210_097)).unwrap();
        assert_eq!(stamp.date, 44 << 9 | 2 << 5 | 29);
        assert_eq!(stamp.time, 12 << 11 | 34 << 5 | 28);
    }
}
