//! Custom ids that are made here.

use crate::domain::time::UnixMs;

/// Where the seconds of a KSUID begin (github.com/segmentio/ksuid): 2014-05-13 16:53:20 UTC.
const KSUID_EPOCH_S: u64 = 1_400_000_000;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The length of the portal's own custom ids.
const LEN: usize = 27;
/// Digits that fit a word: numbers are divided and multiplied by so many at once.
const STEP: usize = 5;
const STEP_POWER: u64 = 62_u64.pow(5);

/// A custom id that looks like the portal's, 27 letters and digits, for the object with this number.
///
/// It is a KSUID: the seconds, then what elsewhere is noise. Here that is the rest of the time, noise
/// that tells installations apart, and the number: the object is found without an index.
pub(crate) fn new_cid(now: UnixMs, number: u64) -> String {
    let seconds = u32::try_from((now.0 / 1_000).saturating_sub(KSUID_EPOCH_S)).unwrap_or(u32::MAX);
    let ms = u32::try_from(now.0 % 1_000).unwrap_or_default();
    // The number alone tells the objects of one installation apart.
    let noise = getrandom::u64().unwrap_or_default();
    let ([noise, more], [high, low]) = (halves(noise), halves(number));
    let mut words = [seconds, ms << 16 | noise & 0xffff, more, high, low];
    let mut digits = [b'0'; LEN];
    let mut rest = 0;
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        if at % STEP == 0 {
            // One step of dividing a long number by a power of 62.
            rest = words.iter_mut().fold(0, |rest: u64, word| {
                let part = rest << 32 | u64::from(*word);
                *word = u32::try_from(part / STEP_POWER).unwrap_or_default();
                part % STEP_POWER
            });
        }
        let at = usize::try_from(rest % 62).unwrap_or_default();
        rest /= 62;
        *digit = DIGITS.get(at).copied().unwrap_or(b'0');
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// The number that a custom id says, if it can be one of ours: whether it is, its object tells.
pub(crate) fn number_in(cid: &str) -> Option<u64> {
    if cid.len() != LEN {
        return None;
    }
    let mut words = [0_u32; 5];
    for digit in cid.bytes() {
        let digit = DIGITS.binary_search(&digit).ok()?;
        let mut carry = u64::try_from(digit).ok()?;
        for word in words.iter_mut().rev() {
            carry += u64::from(*word) * 62;
            *word = u32::try_from(carry & u64::from(u32::MAX)).ok()?;
            carry >>= 32;
        }
        if carry != 0 {
            return None;
        }
    }
    let [.., high, low] = words;
    Some(u64::from(high) << 32 | u64::from(low))
}

fn halves(word: u64) -> [u32; 2] {
    let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or_default();
    [half(word >> 32), half(word)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::portal::fields::is_cid;

    #[test]
    fn custom_ids_are_27_digits_in_the_order_of_their_times() {
        let at = [1, 1_400_000_000_000, 1_772_442_870_000, 1_772_442_870_001, 1_772_442_871_000];
        let ids: Vec<_> = at.iter().map(|ms| new_cid(UnixMs(*ms), 9)).collect();
        assert!(ids.iter().all(|id| id.len() == 27 && is_cid(id)), "{ids:?}");
        assert!(ids.get(1..).is_some_and(<[String]>::is_sorted), "{ids:?}");
        assert_ne!(new_cid(UnixMs(5), 9), new_cid(UnixMs(5), 9));
        // As other implementations of KSUIDs read it: the seconds are above.
        assert!(ids.get(2).is_some_and(|id| id.starts_with("3A")), "{ids:?}");
    }

    #[test]
    fn what_is_no_custom_id_of_ours_says_no_number() {
        let id = new_cid(UnixMs(1_772_442_870_000), 9);
        let longer = format!("{id}0");
        let other = id.replacen(|_: char| true, "-", 1);
        // Above the highest that 20 bytes hold.
        for text in
            ["", "9", &id[1..], &longer, &other, "aWgEPTl1tmebfsQzFP4bxwgy80W", &"z".repeat(27)]
        {
            assert_eq!(number_in(text), None, "{text}");
        }
        assert_eq!(number_in("aWgEPTl1tmebfsQzFP4bxwgy80V"), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_custom_id_says_its_number(ms in any::<u64>(), number in any::<u64>()) {
            prop_assert_eq!(number_in(&new_cid(UnixMs(ms), number)), Some(number));
        }
    }
}
