//! Numbers as people read them.

/// Bytes: `4.58 GiB`.
pub fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            let text = if unit == "bytes" { bytes.to_string() } else { format!("{amount:.2}") };
            return format!("{} {unit}", text.strip_suffix(".00").unwrap_or(&text));
        }
        amount /= 1024.0;
    }
    format!("{amount:.2} TiB")
}

/// A share of one: `93.00 %`; fewer digits where they say nothing.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 90.0 { format!("{percent:.1} %") } else { format!("{percent:.2} %") }
}

/// A ratio: `1.67 times`.
pub fn times(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2} times") } else { format!("{ratio:.0} times") }
}

/// A number with so many digits that its error shows in two: `48.666 ± 1.941` rounds to the error's second digit.
pub fn measured(value: f64, error: f64) -> String {
    if !(error > 0.0 && error.is_finite()) {
        return number(value);
    }
    let digits = (1.0 - libm::floor(libm::log10(error))).clamp(0.0, 8.0) as usize;
    format!("{value:.digits$} ± {error:.digits$}")
}

/// A number in five digits.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (4.0 - libm::floor(libm::log10(value.abs()))).clamp(0.0, 8.0) as usize;
    format!("{value:.digits$}")
}

/// Bits of a weight.
pub fn bits(value: f64) -> String {
    format!("{value:.2}")
}

/// Tokens per second: three or four digits.
pub fn rate(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!(measured(48.66642, 1.94095), "48.7 ± 1.9");
        assert_eq!(measured(0.012_345, 0.000_67), "0.01235 ± 0.00067");
        assert_eq!(measured(3.25, 0.0), "3.2500");
        assert_eq!(measured(3.25, f64::NAN), "3.2500");
        assert_eq!(
            (number(0.0), number(123456.0), number(0.000_123_45)),
            ("0".into(), "123456".into(), "0.00012345".into())
        );
        assert_eq!(
            (size(999), size(1 << 20), size(5 << 30)),
            ("999 bytes".into(), "1 MiB".into(), "5 GiB".into())
        );
        assert_eq!((percent(0.5), percent(0.99999)), ("50.0 %".into(), "100.00 %".into()));
        assert_eq!((rate(9.44), rate(1234.4)), ("9.4".into(), "1234".into()));
    }
}
