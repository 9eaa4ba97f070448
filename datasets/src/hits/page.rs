//! A page: its address, its title and the counter of its site, all of which follow from its rank among pages.

use super::words::{ADDRESS_WORDS, TOP_DOMAINS, hash, push_number, push_phrase};
use crate::random::Random;

const PAGE_SEED: u64 = 0x7061_6765;
const SITE_SEED: u64 = 0x7369_7465;
const TITLE_SEED: u64 = 0x7469_746C;

/// Sites with a counter, about as many as in ClickBench's table.
const COUNTERS: usize = 6_500;
/// The counter that several queries name, and its rank, which gives it just below one hit in a hundred.
const NAMED_COUNTER: i32 = 62;
const NAMED_COUNTER_RANK: u64 = 12;
/// The page of that counter whose hash a query names; popular, so that the query finds rows.
const NAMED_PAGE: u64 = 40;
const NAMED_PAGE_HASH: i64 = 2_868_770_270_353_813_622;
/// The page whose hash a query names as referer.
const NAMED_REFERER: u64 = 7;
const NAMED_REFERER_HASH: i64 = 3_594_120_000_172_545_465;
/// Below this rank no page mentions Google: one popular page would make many of it.
const GOOGLE_RANK_MIN: u64 = 1_000;

/// A page by its rank: 0 is hit most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page(pub(super) u64);

impl Page {
    fn random(self) -> Random {
        Random::of(PAGE_SEED, self.0)
    }

    fn counter_rank(self) -> u64 {
        match self.0 {
            NAMED_PAGE => NAMED_COUNTER_RANK,
            _ => self.random().zipf(COUNTERS, 1.0),
        }
    }

    pub(super) fn counter(self) -> i32 {
        match self.counter_rank() {
            NAMED_COUNTER_RANK => NAMED_COUNTER,
            rank => 100 + Random::of(SITE_SEED, rank).below(200_000) as i32,
        }
    }

    pub(super) fn url_hash(self) -> i64 {
        if self.0 == NAMED_PAGE { NAMED_PAGE_HASH } else { hash(PAGE_SEED, self.0) }
    }

    pub(super) fn referer_hash(self) -> i64 {
        if self.0 == NAMED_REFERER { NAMED_REFERER_HASH } else { hash(PAGE_SEED, self.0) }
    }

    /// One page in 4000 names Google in its address, half of them as a host.
    pub(super) fn push_url(self, out: &mut String) {
        let site = self.counter_rank();
        let mut random = self.random();
        // The first number has chosen the counter.
        random.bits();
        out.push_str("http://");
        push_host(out, site);
        for _ in 0..1 + random.below(3) {
            out.push('/');
            out.push_str(random.choose(&ADDRESS_WORDS));
        }
        match random.below(4_000) {
            0 if self.0 >= GOOGLE_RANK_MIN => out.push_str("/from/www.google.ru"),
            1 if self.0 >= GOOGLE_RANK_MIN => out.push_str("/google-search"),
            _ => {}
        }
        // The rank tells any two pages apart.
        match random.below(3) {
            0 => {
                out.push('/');
                push_number(out, self.0);
                out.push_str(".html");
            }
            1 => {
                out.push_str("/?id=");
                push_number(out, self.0);
            }
            _ => {
                out.push_str("/index.php?page=");
                push_number(out, self.0);
                out.push_str("&session=");
                push_number(out, random.below(1 << 40));
                out.push_str("&ref=");
                out.push_str(random.choose(&ADDRESS_WORDS));
            }
        }
    }

    /// Each two pages share a title; one title in 16 is empty, one in 1000 names Google.
    pub(super) fn push_title(self, out: &mut String) {
        let first = Self(self.0 & !1);
        let mut random = Random::of(TITLE_SEED, first.0);
        if random.below(16) == 0 {
            return;
        }
        push_phrase(out, TITLE_SEED, first.0);
        if random.below(1_000) == 0 && self.0 >= GOOGLE_RANK_MIN {
            out.push_str(" Google");
        }
        out.push_str(" — ");
        push_phrase(out, SITE_SEED, first.counter_rank());
    }
}

/// The host name of the site of a counter.
fn push_host(out: &mut String, site: u64) {
    let mut random = Random::of(SITE_SEED, site);
    if random.below(3) == 0 {
        out.push_str("www.");
    }
    out.push_str(random.choose(&ADDRESS_WORDS));
    if random.below(2) == 0 {
        out.push('-');
    }
    out.push_str(random.choose(&ADDRESS_WORDS));
    out.push_str(random.choose(&TOP_DOMAINS));
}
