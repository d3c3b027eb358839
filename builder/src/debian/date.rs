//! Dates of Release files: `Sat, 12 Sep 2026 07:55:41 UTC` (RFC 5322 with a zone name), and of
//! snapshots: `20260912T075541Z`.

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const SECONDS_PER_DAY: i64 = 86_400;

/// Seconds since 1970-01-01 00:00 UTC of a Release file's date; `None` if it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_weekday, rest)| rest);
    let mut words = text.split_ascii_whitespace();
    let day = number(words.next()?, 1, 31)?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == month_name)?;
    let year = number(words.next()?, 1970, 9999)?;
    let mut clock = words.next()?.split(':');
    let hour = number(clock.next()?, 0, 23)?;
    let minute = number(clock.next()?, 0, 59)?;
    let second = number(clock.next()?, 0, 60)?;
    let zone = words.next()?;
    let plain = matches!(zone, "UTC" | "GMT" | "Z" | "+0000");
    if !plain || clock.next().is_some() || words.next().is_some() {
        return None;
    }
    let month = i64::try_from(month).ok()? + 1;
    let days = days_from_civil(year, month, day);
    Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

/// Seconds since 1970-01-01 00:00 UTC of a snapshot's timestamp (ISO 8601's basic format, in UTC);
/// `None` if it is not one.
#[must_use]
pub fn parse_stamp(text: &str) -> Option<i64> {
    let at = |range: std::ops::Range<usize>| text.get(range);
    if text.len() != 16 || at(8..9) != Some("T") || at(15..16) != Some("Z") {
        return None;
    }
    let part = |range, least, most| number(at(range)?, least, most);
    let (year, month) = (part(0..4, 1970, 9999)?, part(4..6, 1, 12)?);
    let day = part(6..8, 1, 31)?;
    let (hour, minute) = (part(9..11, 0, 23)?, part(11..13, 0, 59)?);
    let days = days_from_civil(year, month, day);
    Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + part(13..15, 0, 60)?)
}

fn number(text: &str, least: i64, most: i64) -> Option<i64> {
    if text.len() > 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse()
        .ok()
        .filter(|value| (least..=most).contains(value))
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years whose years begin
/// in March, so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_counted() {
        assert_eq!(parse_stamp("19700101T000000Z"), Some(0));
        assert_eq!(parse_stamp("20260912T075541Z"), Some(1_789_199_741));
        for bad in [
            "",
            "20260912",
            "20260912T075541",
            "20260912T075541z",
            "20261312T075541Z",
            "20260932T075541Z",
            "20260912T245541Z",
            "2026091 T075541Z",
            "+0260912T075541Z",
            "20260912T07554éZ",
        ] {
            assert_eq!(parse_stamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_counted() {
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse("Sat, 12 Sep 2026 07:55:41 UTC"), Some(1_789_199_741));
        assert_eq!(parse("29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(parse("Tue, 1 Mar 2100 00:00:00 +0000"), Some(4_107_542_400));
        for bad in [
            "",
            "Sat, 12 Sep 2026 07:55:41",
            "Sat, 12 Sep 2026 07:55:41 CET",
            "Sat, 32 Sep 2026 07:55:41 UTC",
            "Sat, 12 sep 2026 07:55:41 UTC",
            "Sat, 12 Sep 2026 07:55 UTC",
            "Sat, 12 Sep 99999 07:55:41 UTC",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
