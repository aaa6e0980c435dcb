//! Dates for `strftime_now`: a plain date and time, and Python's formats of it.

use std::time::{SystemTime, UNIX_EPOCH};

/// A date and time of day without a zone, as `strftime_now` of a template prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// The year of the proleptic Gregorian calendar, 1 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl DateTime {
    /// The system clock's time in UTC.
    pub fn now_utc() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // The civil calendar from a day count, by eras of 400 years that start in March (Hinnant's days_from_civil).
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let time = seconds % 86_400;
        Self {
            year: (era * 400 + year_of_era + u64::from(month <= 2)) as u16,
            month: month as u8,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u8,
            hour: (time / 3_600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }

    /// Reads `2026-01-15`, `2026-01-15T12:00` or `2026-01-15T12:00:30` (a space may stand for the `T`).
    ///
    /// `None` for anything else, a day that its month does not have among them.
    pub fn parse(text: &str) -> Option<Self> {
        fn number(text: &str, digits: usize) -> Option<u16> {
            (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.parse().ok())
                .flatten()
        }
        let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
        let mut date = date.split('-');
        let mut time = time.split(':');
        let mut field = |digits| number(date.next()?, digits);
        let (year, month, day) = (field(4)?, field(2)? as u8, field(2)? as u8);
        let hour = number(time.next()?, 2)? as u8;
        let minute = number(time.next()?, 2)? as u8;
        let second = number(time.next().unwrap_or("00"), 2)? as u8;
        let moment = Self { year, month, day, hour, minute, second };
        let valid = year >= 1
            && (1..=12).contains(&month)
            && (1..=moment.days_in_month(month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && date.next().is_none()
            && time.next().is_none();
        valid.then_some(moment)
    }

    fn leap(&self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_in_month(&self, month: u8) -> u8 {
        match month {
            2 if self.leap() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The day of the year, from 1.
    fn ordinal(&self) -> u32 {
        (1..self.month).map(|month| u32::from(self.days_in_month(month))).sum::<u32>() + u32::from(self.day)
    }

    /// 0 for Monday.
    fn weekday(&self) -> u32 {
        let years = u32::from(self.year) - 1;
        (years * 365 + years / 4 - years / 100 + years / 400 + self.ordinal() + 6) % 7
    }

    /// The ISO 8601 year and week.
    fn iso_week(&self) -> (u16, u32) {
        let weeks = |year: u16| {
            let last = Self { year, month: 12, day: 31, ..*self };
            let (first, last) = (Self { year, month: 1, day: 1, ..*self }.weekday(), last.weekday());
            if first == 3 || last == 3 { 53 } else { 52 }
        };
        match (self.ordinal() + 9 - self.weekday()) / 7 {
            0 => (self.year - 1, if self.year > 1 { weeks(self.year - 1) } else { 52 }),
            week if week > weeks(self.year) => (self.year + 1, 1),
            week => (self.year, week),
        }
    }

    /// Formats as Python's `strftime` does in the C locale; a directive that Python does not know stays as it is.
    ///
    /// glibc's flags `-`, `_`, `0` and `^` are known too, as templates use `%-d`. A time without a zone prints
    /// `%z` and `%Z` as nothing.
    pub fn strftime(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() * 2);
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let flag = chars.next_if(|c| matches!(c, '-' | '_' | '0' | '^'));
            let Some(directive) = chars.next() else {
                out.push('%');
                out.extend(flag);
                break;
            };
            match self.directive(directive, flag) {
                Some(text) if flag == Some('^') => out.push_str(&text.to_uppercase()),
                Some(text) => out.push_str(&text),
                None => {
                    out.push('%');
                    out.extend(flag);
                    out.push(directive);
                }
            }
        }
        out
    }

    fn directive(&self, directive: char, flag: Option<char>) -> Option<String> {
        let padded = |value: u32, width: usize, fill: char| match (flag, fill) {
            (Some('-'), _) => value.to_string(),
            (Some('_'), _) | (None | Some('^'), ' ') => format!("{value:>width$}"),
            _ => format!("{value:0>width$}"),
        };
        let number = |value: u32, width| Some(padded(value, width, '0'));
        let name = |names: &[&str], index: usize| names.get(index).map(|name| (*name).to_owned());
        let short = |name: Option<String>| name.and_then(|name| name.get(..3).map(str::to_owned));
        let (weekday, month) = (self.weekday() as usize, usize::from(self.month).saturating_sub(1));
        let hour = u32::from(self.hour);
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        match directive {
            'a' => short(name(&DAYS, weekday)),
            'A' => name(&DAYS, weekday),
            'b' | 'h' => short(name(&MONTHS, month)),
            'B' => name(&MONTHS, month),
            'c' => Some(self.strftime("%a %b %e %H:%M:%S %Y")),
            'C' => number(u32::from(self.year) / 100, 2),
            'd' => number(self.day.into(), 2),
            'D' | 'x' => Some(self.strftime("%m/%d/%y")),
            'e' => Some(padded(self.day.into(), 2, ' ')),
            'f' => Some("000000".into()),
            'F' => Some(self.strftime("%Y-%m-%d")),
            'g' => number(u32::from(self.iso_week().0) % 100, 2),
            'G' => number(self.iso_week().0.into(), 4),
            'H' => number(hour, 2),
            'I' => number(twelve, 2),
            'j' => number(self.ordinal(), 3),
            'k' => Some(padded(hour, 2, ' ')),
            'l' => Some(padded(twelve, 2, ' ')),
            'm' => number(self.month.into(), 2),
            'M' => number(self.minute.into(), 2),
            'n' => Some("\n".into()),
            'p' => Some(if hour < 12 { "AM" } else { "PM" }.into()),
            'P' => Some(if hour < 12 { "am" } else { "pm" }.into()),
            'r' => Some(self.strftime("%I:%M:%S %p")),
            'R' => Some(self.strftime("%H:%M")),
            'S' => number(self.second.into(), 2),
            't' => Some("\t".into()),
            'T' | 'X' => Some(self.strftime("%H:%M:%S")),
            'u' => number(self.weekday() + 1, 1),
            'U' => number((self.ordinal() + 6 - (self.weekday() + 1) % 7) / 7, 2),
            'V' => number(self.iso_week().1, 2),
            'w' => number((self.weekday() + 1) % 7, 1),
            'W' => number((self.ordinal() + 6 - self.weekday()) / 7, 2),
            'y' => number(u32::from(self.year) % 100, 2),
            'Y' => number(self.year.into(), 1),
            'z' | 'Z' => Some(String::new()),
            '%' => Some("%".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DateTime;

    #[test]
    fn reads_only_real_moments() {
        let noon = DateTime::parse("2026-01-15T12:00:00").unwrap();
        assert_eq!((noon.year, noon.month, noon.day, noon.hour), (2026, 1, 15, 12));
        assert_eq!(DateTime::parse("2026-01-15"), DateTime::parse("2026-01-15 00:00"));
        assert!(DateTime::parse("2024-02-29").is_some());
        for wrong in
            ["", "2026-1-15", "2026-02-29", "2026-01-15T24:00", "2026-01-15T12:00:00Z", "2026-01-15-01"]
        {
            assert_eq!(DateTime::parse(wrong), None, "{wrong}");
        }
    }

    /// Expected values from CPython 3.11, `datetime.strftime`.
    #[test]
    fn prints_as_python_does() {
        let day = DateTime::parse("2026-01-05T15:04:09").unwrap();
        assert_eq!(
            day.strftime("%d %-d %e %B %b %Y %y %m %-m %H %I %-I %M %S %p %A %a %j %u %w %U %W %V %G %%"),
            "05 5  5 January Jan 2026 26 01 1 15 03 3 04 09 PM Monday Mon 005 1 1 01 01 02 2026 %"
        );
        assert_eq!(
            DateTime::parse("2021-01-01").unwrap().strftime("%G-%V %F %T %^a"),
            "2020-53 2021-01-01 00:00:00 FRI"
        );
        assert_eq!(DateTime::parse("2024-12-30").unwrap().strftime("%G-%V %j"), "2025-01 365");
        assert_eq!(day.strftime("100%"), "100%");
    }
}
