//! Admitting while the store is away: hands first, then this gateway's share of what it last saw
//! remain, written down before it is used. design.md, section 4, "When the store is away".

use std::path::Path;
use std::sync::Arc;

use crate::domain::counter::{CounterKey, Window};
use crate::domain::limit::{Period, Rate};
use crate::domain::period::window_at;
use crate::domain::reading::{LIMITS_MAX, LimitKind, Readings};
use crate::domain::shard::local_share;
use crate::domain::time::{BootNs, UnixMs};
use crate::enforce::ledger::quota::settlement;
use crate::enforce::ledger::{Charged, Ledger};
use crate::enforce::slot::{Charge, ChargeLimit, InHand, QuotaInHand, Slot, State, Verdict};
use crate::store::shares::{Debt, Shares, Wish};
use crate::store::{CounterStore, QuotaReserve, QuotaReserved, StoreError};

/// A share is used in this many blocks: each costs a sync, and what a crash leaves of one is lost.
const BLOCKS: u64 = 16;
/// Looks at the slots for one request: each ends with a word on it, or with a block taken.
const LOOKS_MAX: usize = 2 * LIMITS_MAX;

/// What one look at all limits says while the store is away.
enum Look {
    /// They say this.
    Done(Charged),
    /// This limit (by position) needs a block.
    Take(usize),
    /// This gateway has nothing left, or does not know.
    Nothing,
}

/// Where a cost is taken from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Hand,
    Share,
}

impl Ledger {
    /// Lets this gateway admit by itself while the store is away.
    pub(in crate::enforce) fn keep_shares(&self, folder: &Path) -> Result<(), StoreError> {
        let _first = self.folder.set(folder.to_owned());
        self.open_shares(folder)
    }

    /// Opens the folder, or leaves it to a later try while another process has it open: one that
    /// hands over to this one ends soon.
    fn open_shares(&self, folder: &Path) -> Result<(), StoreError> {
        match Shares::open(folder, self.process, self.clock.unix()) {
            Ok(shares) => {
                let _first = self.shares.set(Arc::new(shares));
                Ok(())
            }
            Err(StoreError::InUse) => {
                tracing::warn!("another process has the folder of local units open");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Charges `cost` to every limit without the store, all or nothing; `None`: this gateway may
    /// not.
    pub(super) async fn charge_locally(&self, charges: &[Charge], cost: u64) -> Option<Charged> {
        let shares = self.shares.get()?;
        for _ in 0..LOOKS_MAX {
            match self.look_locally(charges, cost) {
                Look::Done(charged) => return Some(charged),
                Look::Nothing => return None,
                Look::Take(at) => {
                    if let Err(error) = self.take_block(shares, charges.get(at)?, cost).await {
                        tracing::error!(%error, "a share of a quota cannot be written down");
                        return None;
                    }
                }
            }
        }
        None
    }

    fn look_locally(&self, charges: &[Charge], cost: u64) -> Look {
        debug_assert!(charges.is_sorted_by_key(|charge| charge.slot.number));
        let now = self.clock.boot();
        let mut guards: [_; LIMITS_MAX] = std::array::from_fn(|n| charges.get(n).map(Charge::lock));
        let mut from = [From::Hand; LIMITS_MAX];
        let mut readings = Readings::at(now);
        for (at, (charge, guard)) in charges.iter().zip(&mut guards).enumerate() {
            let Some(state) = guard else { continue };
            match charge.judge(state, cost, now) {
                Verdict::Enough => {}
                Verdict::Refused { wait_ms } => {
                    let kind = charge.kind();
                    readings.push(charge.reading(state, now));
                    return Look::Done(Charged::Refused { kind, wait_ms, readings });
                }
                Verdict::Ask => match self.in_share(charge, state, cost, now) {
                    Some(true) => {
                        if let Some(from) = from.get_mut(at) {
                            *from = From::Share;
                        }
                    }
                    Some(false) => return Look::Take(at),
                    None => return Look::Nothing,
                },
            }
        }
        for ((charge, guard), from) in charges.iter().zip(&mut guards).zip(from) {
            let Some(state) = guard else { continue };
            match from {
                From::Hand => charge.spend(state, cost, now),
                From::Share => self.admit(charge, state, cost, now),
            }
            readings.push(charge.reading(state, now));
        }
        Look::Done(Charged::Locally(readings))
    }

    /// Whether a cost can be taken from what was taken of a share: `Some(false)` is not without
    /// another block, `None` not at all.
    fn in_share(&self, charge: &Charge, state: &mut State, cost: u64, now: BootNs) -> Option<bool> {
        match (&mut state.hand, &charge.limit) {
            (InHand::Quota(quota), ChargeLimit::Quota { period, resets, .. }) => {
                self.window_without_store(quota, period, *resets, now)?;
                if cost <= quota.block {
                    return Some(true);
                }
                let lacks = |least| least <= cost.saturating_sub(quota.block);
                (!quota.share_lacks.is_some_and(lacks)).then_some(false)
            }
            (InHand::Rate(held), ChargeLimit::Rate(rate)) => {
                let share = self.rate_share(*rate)?;
                (cost <= held.away.free(share, now)).then_some(true)
            }
            (InHand::Quota(_), ChargeLimit::Rate(_))
            | (InHand::Rate(_), ChargeLimit::Quota { .. }) => None,
        }
    }

    /// Takes what [`Self::in_share`] found.
    fn admit(&self, charge: &Charge, state: &mut State, cost: u64, now: BootNs) {
        match (&mut state.hand, &charge.limit) {
            (InHand::Quota(quota), ChargeLimit::Quota { .. }) => {
                quota.block = quota.block.saturating_sub(cost);
                quota.held.hand.admit_locally(cost);
                self.metrics.admitted_locally(LimitKind::Quota, cost);
            }
            (InHand::Rate(held), ChargeLimit::Rate(rate)) => {
                if let Some(share) = self.rate_share(*rate) {
                    held.away.take(share, cost, now);
                }
                self.metrics.admitted_locally(LimitKind::Rate, cost);
            }
            (InHand::Quota(_), ChargeLimit::Rate(_))
            | (InHand::Rate(_), ChargeLimit::Quota { .. }) => {}
        }
        state.used = now;
    }

    /// The window by this machine's clock, as the hand's. `None` where only the store knows: when
    /// the subject was never used, or was reset and the old window's units are not reported yet.
    fn window_without_store(
        &self,
        quota: &mut QuotaInHand,
        period: &Period,
        resets: u64,
        now: BootNs,
    ) -> Option<Window> {
        let anchor = match period {
            Period::Every { .. } => quota.anchor?,
            Period::Never | Period::Calendar(_) => UnixMs(0),
        };
        let unix = self.clock.unix();
        let window = window_at(period, anchor, resets, unix);
        let is_over = |ends: Option<BootNs>| ends.is_some_and(|ends| ends <= now);
        match quota.window {
            Some((known, ends)) if known == window => return (!is_over(ends)).then_some(window),
            Some((_, ends)) if !is_over(ends) => return None,
            Some(_) => self.metrics.wasted(quota.held.hand.units()),
            None => {}
        }
        let ends = window.end.map(|end| now.plus_ms(end.since_ms(unix)));
        let (limit, generation) = (quota.limit, quota.generation);
        *quota = QuotaInHand {
            window: Some((window, ends)),
            renews: ends,
            anchor: quota.anchor,
            limit,
            generation,
            hold_off: quota.hold_off,
            ..QuotaInHand::default()
        };
        Some(window)
    }

    /// This gateway's part of a rate; `None`: it has none.
    fn rate_share(&self, rate: Rate) -> Option<Rate> {
        let live = self.peers.listed()?;
        let share = local_share(rate.requests.get(), &live, self.process);
        crate::domain::ratelog::rate(share, rate.per_ms.get())
    }

    /// Writes down that another block of a share is used from here on.
    async fn take_block(
        &self,
        shares: &Arc<Shares>,
        charge: &Charge,
        cost: u64,
    ) -> Result<(), StoreError> {
        // One at a time: who waits mostly finds enough in the block that was taken meanwhile.
        let _turn = self.taking.lock().await;
        let Some((window, wish)) = self.wish(charge, cost) else { return Ok(()) };
        let (shares, key) = (Arc::clone(shares), charge.slot.key.clone());
        let taking = tokio::task::spawn_blocking(move || shares.take(&key, &window, wish));
        let taken = taking.await.map_err(|error| StoreError::io("written", error))??;
        if let InHand::Quota(quota) = &mut charge.lock().hand
            && quota.window.is_some_and(|(now, _)| now == window)
        {
            quota.block = quota.block.saturating_add(taken);
            quota.share_lacks = (taken == 0).then_some(wish.least);
        }
        Ok(())
    }

    fn wish(&self, charge: &Charge, cost: u64) -> Option<(Window, Wish)> {
        let mut state = charge.lock();
        let ChargeLimit::Quota { limit, .. } = &charge.limit else { return None };
        let InHand::Quota(quota) = &mut state.hand else { return None };
        let (window, _) = quota.window?;
        if cost <= quota.block {
            return None;
        }
        let live = self.peers.listed().unwrap_or_default();
        let seen = quota.held.hand.last_seen().unwrap_or(*limit).min(*limit);
        let whole = local_share(seen, &live, self.process);
        // The store knows a process on a counter by its first call: from now on this is it.
        let first_call = match quota.held.hand.totals().first_call {
            0 => quota.held.hand.next_call(self.next_q()).first_call,
            begun => begun,
        };
        let least = cost.saturating_sub(quota.block);
        let want = least.max(whole.div_ceil(BLOCKS));
        Some((window, Wish { whole, first_call, want, least }))
    }

    /// After an answer of the store: it has been told what was admitted, so what is left of a
    /// block is not used without being taken again.
    pub(super) fn settle(&self, slot: &Slot) {
        let Some(shares) = self.shares.get() else { return };
        let mut state = slot.state.lock();
        let InHand::Quota(quota) = &mut state.hand else { return };
        quota.share_lacks = None;
        let (Some((window, _)), 1..) = (quota.window, quota.block) else { return };
        let unused = std::mem::take(&mut quota.block);
        drop(state);
        if let Err(error) = shares.correct(&slot.key, &window, unused) {
            tracing::warn!(%error, "what was admitted locally cannot be corrected on disk");
        }
    }

    /// Tells the store what ended processes on this folder admitted; of one counter, or of all.
    pub(in crate::enforce) async fn pay_debts(
        &self,
        of: Option<&CounterKey>,
    ) -> Result<(), StoreError> {
        let Some(shares) = self.shares.get().filter(|shares| shares.owes()) else { return Ok(()) };
        for debt in shares.debts() {
            if of.is_none_or(|key| *key == debt.key) {
                self.pay(shares, &debt).await?;
            }
        }
        Ok(())
    }

    async fn pay(&self, shares: &Shares, debt: &Debt) -> Result<(), StoreError> {
        let call = settlement(debt.process, debt.taken.first_call, debt.taken.units);
        let reserve = QuotaReserve { key: debt.key.clone(), window: debt.window, call };
        match self.store.quota(&reserve).await? {
            QuotaReserved::Answer { .. } => {}
            // Debt ends with the window; one that has not begun by the store's clock waits.
            QuotaReserved::OtherWindow { now } => {
                if debt.window.end.is_none_or(|end| now < end) {
                    return Ok(());
                }
            }
            QuotaReserved::Learn => return Err(StoreError::Learning),
        }
        shares.paid(debt)
    }

    /// Pays what ended processes owe, as soon as the store is there, and forgets windows that are
    /// over.
    pub(super) async fn sweep_shares(&self) {
        let Some(shares) = self.shares.get() else {
            if let Some(Err(error)) = self.folder.get().map(|folder| self.open_shares(folder)) {
                tracing::error!(%error, "the folder of local units cannot be used");
            }
            return;
        };
        if let Err(error) = self.pay_debts(None).await {
            tracing::debug!(%error, "debts of ended processes wait");
        }
        if let Err(error) = shares.sweep(self.clock.unix()) {
            tracing::warn!(%error, "the journal of local units cannot be kept short");
        }
    }

    /// Units admitted locally that the store has not heard of.
    pub(in crate::enforce) fn debt(&self) -> u64 {
        let own = self.slots.iter().map(|slot| match &slot.state.lock().hand {
            InHand::Quota(quota) => quota.held.hand.unsettled(),
            InHand::Rate(_) => 0,
        });
        let own = own.fold(0, u64::saturating_add);
        let ended = self.shares.get().map(|shares| shares.debts()).unwrap_or_default();
        ended.iter().map(|debt| debt.taken.units).fold(own, u64::saturating_add)
    }
}
