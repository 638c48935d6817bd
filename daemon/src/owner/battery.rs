//! Whether the machine runs on its battery, as Linux's power supplies say.

use std::path::Path;

/// More entries than any machine has.
const MOST_SUPPLIES: usize = 64;

/// `None` when the machine has no battery, or no such directory.
///
/// Batteries of mice and headsets are listed beside the machine's own, with the scope `Device`. A battery that is being
/// discharged while the mains are connected (a weak charger under load) will end as well, but not today.
pub(super) fn on_battery(root: &Path) -> Option<bool> {
    let (mut battery, mut discharging, mut mains) = (false, false, false);
    for entry in std::fs::read_dir(root).ok()?.flatten().take(MOST_SUPPLIES) {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        match read("type").trim() {
            "Battery" if read("scope").trim() != "Device" => {
                battery = true;
                discharging |= read("status").trim() == "Discharging";
            }
            "Mains" | "USB" => mains |= read("online").trim() == "1",
            _ => {}
        }
    }
    battery.then_some(discharging && !mains)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes supplies, each with its files, and asks.
    fn asked(supplies: &[(&str, &[(&str, &str)])]) -> Option<bool> {
        let root = tempfile::tempdir().unwrap();
        for (supply, files) in supplies {
            let dir = root.path().join(supply);
            std::fs::create_dir(&dir).unwrap();
            for (file, text) in *files {
                std::fs::write(dir.join(file), format!("{text}\n")).unwrap();
            }
        }
        on_battery(root.path())
    }

    const DISCHARGING: &[(&str, &str)] =
        &[("type", "Battery"), ("scope", "System"), ("status", "Discharging")];
    const CHARGING: &[(&str, &str)] = &[("type", "Battery"), ("status", "Charging")];

    #[test]
    fn a_laptop_is_told_from_a_tower_with_a_wireless_mouse() {
        let mains = |online| [("type", "Mains"), ("online", online)];
        assert_eq!(asked(&[("BAT0", DISCHARGING), ("AC", &mains("0"))]), Some(true));
        assert_eq!(asked(&[("BAT0", DISCHARGING)]), Some(true));
        assert_eq!(asked(&[("BAT0", DISCHARGING), ("AC", &mains("1"))]), Some(false));
        assert_eq!(asked(&[("BAT0", CHARGING), ("AC", &mains("1"))]), Some(false));
        assert_eq!(asked(&[("BAT0", CHARGING), ("BAT1", DISCHARGING)]), Some(true));
        let mouse: &[(&str, &str)] = &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")];
        assert_eq!(asked(&[("hidpp_battery_0", mouse), ("AC", &mains("1"))]), None);
        assert_eq!(asked(&[]), None);
        assert_eq!(on_battery(Path::new("/nonexistent")), None);
    }
}
