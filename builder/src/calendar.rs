//! Dates of the calendar, for people: Gregorian, in UTC.

/// The first second of the year 0.
const FIRST_SECONDS: i64 = -62_167_219_200;
/// The last second of the year 9999.
const LAST_SECONDS: i64 = 253_402_300_799;

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// 0 to 9999.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

impl Moment {
    /// So many seconds after 1970 began. What four digits do not hold is cut off there.
    #[must_use]
    pub fn of(seconds: i64) -> Self {
        let seconds = seconds.clamp(FIRST_SECONDS, LAST_SECONDS);
        let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // In years that begin in March; see Hinnant's "chrono-compatible low-level date algorithms".
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = (shifted_month + 2) % 12 + 1;
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, [1970, 1, 1, 0, 0, 0]),
            (-1, [1969, 12, 31, 23, 59, 59]),
            (951_782_399, [2000, 2, 28, 23, 59, 59]),
            (951_825_600, [2000, 2, 29, 12, 0, 0]),
            (1_795_000_000, [2026, 11, 18, 11, 6, 40]),
            (4_107_542_400, [2100, 3, 1, 0, 0, 0]),
            (i64::MIN, [0, 1, 1, 0, 0, 0]),
            (i64::MAX, [9999, 12, 31, 23, 59, 59]),
        ] {
            let Moment {
                year,
                month,
                day,
                hour,
                minute,
                second,
            } = Moment::of(seconds);
            assert_eq!([year, month, day, hour, minute, second], expected);
        }
    }
}
