//! What a gateway remembers of a shard and of its counters, and how it takes answers in.

use crate::domain::lease::{Cell, Hand, QuotaAnswer};
use crate::domain::shard::{CounterCopy, Incarnation};

/// A process's standing at one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    incarnation: Incarnation,
    asserted: bool,
}

impl Member {
    /// A process that remembers no counter of the shard, and read its incarnation: it has nothing
    /// to assert, but a shard that is learning may wait for it to say so.
    #[must_use]
    pub fn begun(incarnation: Incarnation, learning: bool) -> Self {
        Self { incarnation, asserted: !learning }
    }

    /// What calls name.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether all that is remembered was asserted in this incarnation: only then may units be
    /// asked for. Units in hand are spent regardless.
    #[must_use]
    pub fn may_reserve(&self) -> bool {
        self.asserted
    }

    /// Takes a LEARN in. From a new incarnation on, answers of the earlier ones are ignored, so
    /// what is asserted is all there is. LEARN in an incarnation that was asserted in only says
    /// that others are still awaited.
    pub fn learn(&mut self, told: Incarnation) {
        if self.incarnation < told {
            *self = Self { incarnation: told, asserted: false };
        }
    }

    /// Takes in that the last batch of asserts was executed in the incarnation it named.
    pub fn acknowledge(&mut self, named: Incarnation) {
        if self.incarnation == named {
            self.asserted = true;
        }
    }
}

/// The answer to one reserve, with what it echoes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuotaReply {
    /// The incarnation the call named, in which it was executed.
    pub incarnation: Incarnation,
    /// The call's number.
    pub q: u64,
    /// What became of it.
    pub answer: QuotaAnswer,
    /// The counter after it, where the store may ever need to be reminded of it.
    pub copy: Option<Box<CounterCopy>>,
}

/// What a gateway asserts of one counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Assertion {
    /// Its own totals, if it has a hand.
    pub cell: Option<Cell>,
    /// The newest copy it was shown.
    pub copy: Option<Box<CounterCopy>>,
}

/// Whether an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It does.
    Yes,
    /// It is of an earlier life of the store.
    No,
}

/// One quota counter in one window, as a gateway remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// Units to spend.
    pub hand: Hand,
    copy: Option<Box<CounterCopy>>,
}

impl Held {
    /// Takes an answer in, whenever and however often it arrives.
    ///
    /// An answer of an earlier incarnation is ignored: its grant may be lost to the store, and the
    /// units granted again. So is GONE to any call but the newest.
    pub fn accept(&mut self, member: &Member, reply: &QuotaReply) -> Accepted {
        if reply.incarnation != member.incarnation {
            return Accepted::No;
        }
        match &reply.answer {
            QuotaAnswer::State(_) => self.hand.merge(&reply.answer),
            QuotaAnswer::Gone if reply.q == self.hand.newest_call() => {
                self.hand.merge(&reply.answer);
            }
            QuotaAnswer::Gone => {}
        }
        let known = self.copy.as_ref().map(|copy| copy.rank());
        if known < reply.copy.as_ref().map(|copy| copy.rank()) {
            self.copy.clone_from(&reply.copy);
        }
        Accepted::Yes
    }

    /// What to assert with call number `q`, which is above all earlier ones of the process.
    pub fn assertion(&mut self, q: u64) -> Assertion {
        let cell = self.hand.has_begun().then(|| self.hand.next_call(q));
        Assertion { cell, copy: self.copy.clone() }
    }

    /// Drops the hand and keeps the copy, if nothing in hand or under way would be lost by it.
    pub fn forget_hand(&mut self) -> bool {
        let may = self.hand.may_be_forgotten();
        if may {
            self.hand = Hand::default();
        }
        may
    }

    /// Drops the copy, where memory is short. A loss of the store may then admit again what only
    /// this copy showed.
    pub fn forget_copy(&mut self) {
        self.copy = None;
    }

    /// The newest copy.
    #[must_use]
    pub fn copy(&self) -> Option<&CounterCopy> {
        self.copy.as_deref()
    }
}
