//! Picking a target: a plan made whenever targets come, go, fail or return, and one look into it
//! per request.

/// Points of one unit of weight on a ring, at most: enough that shares differ by a few per cent.
const POINTS_PER_UNIT_MAX: usize = 160;
/// Points of a whole ring, about, whatever the weights.
const POINTS_MAX: usize = 40_960;

/// One target that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its position among the API's targets.
    pub at: u16,
    /// Its share; at least 1.
    pub weight: u16,
    /// What it is called: a ring depends on names, and so is the same on every gateway.
    pub name: &'a str,
}

/// The order in which targets are picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// In turn: every target as often as its weight says, spread evenly.
    Turns(Box<[u16]>),
    /// By a hash: who has the same hash gets the same target, and when a target goes, only its
    /// share moves.
    Ring(Box<[(u64, u16)]>),
}

impl Plan {
    /// A plan in turn: the smooth weighted round robin that nginx made known.
    #[must_use]
    pub fn turns(members: &[Member<'_>]) -> Self {
        let unit = unit(members);
        let mut standing: Vec<(i64, i64, u16)> =
            members.iter().map(|m| (0, i64::from(m.weight / unit), m.at)).collect();
        let total: i64 = standing.iter().map(|(_, weight, _)| weight).sum();
        let mut turns = Vec::new();
        for _ in 0..total {
            for (current, weight, _) in &mut standing {
                *current = current.saturating_add(*weight);
            }
            // Of several the first: `max_by_key` would take the last.
            let best = standing.iter_mut().rev().max_by_key(|(current, ..)| *current);
            let Some((current, _, at)) = best else { break };
            *current = current.saturating_sub(total);
            turns.push(*at);
        }
        Self::Turns(turns.into())
    }

    /// A plan by hash.
    #[must_use]
    pub fn ring(members: &[Member<'_>]) -> Self {
        let unit = unit(members);
        let units = |m: &Member<'_>| usize::from(m.weight / unit);
        let total: usize = members.iter().map(units).sum();
        let each = (POINTS_MAX / total.max(1)).clamp(1, POINTS_PER_UNIT_MAX);
        let mut points: Vec<(u64, u16)> = Vec::with_capacity(total.saturating_mul(each));
        for member in members {
            let seed = hash(member.name.as_bytes());
            let count = u64::try_from(units(member).saturating_mul(each)).unwrap_or(0);
            // Targets of one name share one seed; their positions keep them apart.
            let apart = u64::from(member.at) << 48;
            points.extend((0..count).map(|n| (mixed(seed ^ apart ^ n), member.at)));
        }
        points.sort_unstable();
        Self::Ring(points.into())
    }

    /// The target of a turn, or of a hash; the next one where `skip` says so. None when all are
    /// skipped.
    #[must_use]
    pub fn pick(&self, n: u64, skip: impl Fn(u16) -> bool) -> Option<u16> {
        let around = |len: usize, from: usize| (from..len).chain(0..from);
        match self {
            Self::Turns(turns) => {
                let len = u64::try_from(turns.len()).ok()?;
                let from = usize::try_from(n.checked_rem(len)?).ok()?;
                let mut order = around(turns.len(), from).filter_map(|at| turns.get(at).copied());
                order.find(|at| !skip(*at))
            }
            Self::Ring(points) => {
                let from = points.partition_point(|(point, _)| *point < n);
                let order = around(points.len(), from).filter_map(|at| points.get(at));
                order.map(|(_, at)| *at).find(|at| !skip(*at))
            }
        }
    }
}

/// A hash that stays the same from run to run and machine to machine: FNV-1a, and a mixer behind
/// it, since FNV leaves the upper bits of short texts alike.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of MurmurHash3: every bit of the input moves about half of the output's.
fn mixed(mut n: u64) -> u64 {
    n = (n ^ (n >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    n = (n ^ (n >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ (n >> 33)
}

/// The largest number that divides all weights.
fn unit(members: &[Member<'_>]) -> u16 {
    fn gcd(a: u16, b: u16) -> u16 {
        match a.checked_rem(b) {
            None => a,
            Some(rest) => gcd(b, rest),
        }
    }
    members.iter().fold(0, |unit, member| gcd(unit, member.weight)).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn members(weights: &[u16]) -> Vec<Member<'static>> {
        const NAMES: [&str; 5] = ["a:80", "b:80", "c:80", "d:80", "e:80"];
        let member = |(at, (weight, name)): (usize, (&u16, &&'static str))| Member {
            at: u16::try_from(at).unwrap(),
            weight: *weight,
            name,
        };
        weights.iter().zip(&NAMES).enumerate().map(member).collect()
    }

    #[test]
    fn turns_follow_the_weights_and_spread_them() {
        let check = |weights: &[u16], expect: &str| {
            let Plan::Turns(turns) = Plan::turns(&members(weights)) else { panic!("turns") };
            let text: Vec<String> = turns.iter().map(ToString::to_string).collect();
            assert_eq!(text.join(" "), expect, "{weights:?}");
        };
        check(&[], "");
        check(&[7], "0");
        check(&[1, 1, 1], "0 1 2");
        check(&[5, 1, 1], "0 0 1 0 2 0 0");
        check(&[50, 10, 10], "0 0 1 0 2 0 0");
        check(&[2, 4], "1 0 1");
    }

    #[test]
    fn what_was_tried_is_skipped_until_nothing_is_left() {
        for plan in [Plan::turns(&members(&[1, 2, 3])), Plan::ring(&members(&[1, 2, 3]))] {
            for n in [0, 1, 5, u64::MAX] {
                let first = plan.pick(n, |_| false).unwrap();
                let second = plan.pick(n, |at| at == first).unwrap();
                let third = plan.pick(n, |at| at == first || at == second).unwrap();
                assert!(first != second && second != third && first != third);
                assert_eq!(plan.pick(n, |_| true), None);
            }
        }
        assert_eq!(Plan::turns(&[]).pick(3, |_| false), None);
        assert_eq!(Plan::ring(&[]).pick(3, |_| false), None);
    }

    #[test]
    fn a_ring_shares_by_weight_and_moves_only_what_it_must() {
        let all = members(&[1, 1, 2]);
        let (whole, without) = (Plan::ring(&all), Plan::ring(&all[..2]));
        let (mut shares, mut moved) = (BTreeMap::new(), 0);
        for key in 0..20_000_u64 {
            let n = hash(&key.to_le_bytes());
            let at = whole.pick(n, |_| false).unwrap();
            *shares.entry(at).or_insert(0_u32) += 1;
            let later = without.pick(n, |_| false).unwrap();
            moved += u32::from(at != 2 && at != later);
            assert_eq!(at, whole.pick(n, |_| false).unwrap());
            assert_eq!(later, whole.pick(n, |at| at == 2).unwrap(), "as if it were not there");
        }
        assert_eq!(moved, 0, "who had a target that stays keeps it");
        for (at, expect) in [(0, 5_000), (1, 5_000), (2, 10_000)] {
            let share = shares[&at];
            assert!(share.abs_diff(expect) < expect / 5, "{at} got {share} of 20000");
        }
    }

    #[test]
    fn heavy_weights_make_no_heavy_ring() {
        let heavy: Vec<Member<'_>> =
            (0..256).map(|at| Member { at, weight: 99 + at % 2, name: "x:1" }).collect();
        let Plan::Ring(points) = Plan::ring(&heavy) else { panic!("a ring") };
        assert!(points.len() <= POINTS_MAX, "{}", points.len());
    }
}
