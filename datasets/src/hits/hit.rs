//! One hit: which user saw which page when, and how they came there.

use super::page::Page;
use super::words::{PHONE_MODELS, hash, push_number, push_phrase};
use crate::random::{Random, mix};

const HIT_SEED: u64 = 0x6869_7473;
const USER_SEED: u64 = 0x7573_6572;
const PHRASE_SEED: u64 = 0x7068_7261;

/// 1 July 2013, in days since 1970.
pub(super) const FIRST_DAY: i32 = 15_887;
pub(super) const DAY_SECONDS: i64 = 86_400;
const MONTH_SECONDS: u64 = 31 * 86_400;
/// Hits arrive out of order by up to this much.
const DELAY_SECONDS_MAX: u64 = 900;

/// Users a row: with hits of user r falling as 1 / √r, about 17 of 100 rows are the first of a user, as in ClickBench's table.
const USERS_PER_ROW: f64 = 0.1745;
/// The user whom a query names is in the middle of the ranks, with few hits.
const NAMED_USER: i64 = 435_090_932_899_640_449;
/// Regions of users, about as many as in ClickBench's table, and its most frequent ones.
const REGIONS: usize = 9_000;
const TOP_REGIONS: [i32; 8] = [229, 2, 208, 169, 32, 34, 184, 42];

/// What the columns are made of. Texts are kept as ranks.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    /// Unlike that of every other hit.
    pub(super) watch: i64,
    /// Since the start of the month.
    pub(super) seconds: i64,
    pub(super) page: Page,
    pub(super) user: User,
    pub(super) ip: i32,
    pub(super) is_refresh: bool,
    pub(super) is_link: bool,
    pub(super) is_download: bool,
    pub(super) dont_count: bool,
    pub(super) advertiser: i16,
    pub(super) search_engine: i16,
    /// Rank of the phrase that was searched for.
    pub(super) phrase: Option<u64>,
    pub(super) traffic_source: i16,
    pub(super) referer: Referer,
    pub(super) window: (i16, i16),
}

/// Where a user came from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Referer {
    Nowhere,
    /// A search engine that was asked for the phrase of this rank.
    Search(i16, u64),
    Page(Page),
}

/// What stays the same from hit to hit of a user.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: i64,
    pub(super) region: i32,
    pub(super) resolution_width: i16,
    /// Number of the maker and index of the model.
    pub(super) phone: Option<(i16, usize)>,
    ip: i32,
}

impl Hit {
    /// Row `row` of `rows`.
    pub(super) fn of(row: usize, rows: usize) -> Self {
        let mut random = Random::of(HIT_SEED, row as u64);
        let user = User::draw(&mut random, rows);
        let page = Page(random.zipf(rows, 1.0));
        let on_time = row as u64 * (MONTH_SECONDS - DELAY_SECONDS_MAX) / rows as u64;
        // 13 of 100 hits come from a search that is known; few phrases repeat.
        let phrase = random.percent(13.2).then(|| random.zipf(rows * 8, 0.9));
        let search_engine = match phrase {
            Some(_) => random.weighted(&[(2, 70), (3, 20), (4, 4), (1, 3), (28, 2), (13, 1)]),
            None if random.percent(0.5) => 2,
            None => 0,
        };
        let advertiser = match random.percent(0.63) {
            true => {
                random.weighted(&[(2, 640), (27, 180), (13, 72), (45, 62), (44, 15), (3, 10), (62, 6), (52, 5), (50, 4), (28, 3), (53, 3)])
            }
            false => 0,
        };
        let traffic_source = match (phrase, advertiser) {
            (Some(_), _) => 2,
            (_, 1..) => 3,
            _ => random.weighted(&[(-1, 40), (0, 25), (1, 20), (6, 5), (4, 3), (5, 3), (7, 2), (8, 1), (9, 1)]),
        };
        let referer = match phrase {
            Some(phrase) => Referer::Search(search_engine, phrase),
            None if random.percent(20.0) => Referer::Nowhere,
            None => Referer::Page(Page(random.zipf(rows, 1.0))),
        };
        let window = match random.percent(10.0) {
            true => (0, 0),
            false => ((user.resolution_width - random.below(60) as i16).max(0), 400 + random.below(600) as i16),
        };
        Self {
            watch: mix(row as u64 ^ HIT_SEED).cast_signed(),
            seconds: (on_time + random.below(DELAY_SECONDS_MAX)).cast_signed(),
            page,
            // Some are on the way.
            ip: if random.percent(8.0) { address(random.below(rows as u64)) } else { user.ip },
            user,
            is_refresh: random.percent(12.0),
            is_link: random.percent(4.0),
            is_download: random.percent(0.2),
            dont_count: random.percent(7.0),
            advertiser,
            search_engine,
            phrase,
            traffic_source,
            referer,
            window,
        }
    }

    pub(super) fn push_phrase(&self, out: &mut String) {
        if let Some(phrase) = self.phrase {
            push_phrase(out, PHRASE_SEED, phrase);
        }
    }
}

impl Referer {
    pub(super) fn push_url(self, out: &mut String) {
        match self {
            Self::Nowhere => {}
            Self::Search(engine, phrase) => {
                out.push_str(match engine {
                    2 => "http://yandex.ru/yandsearch?text=",
                    3 => "http://www.google.ru/url?sa=t&q=",
                    _ => "http://go.mail.ru/search?q=",
                });
                push_number(out, mix(phrase));
                out.push_str("&lr=213&where=/");
            }
            Self::Page(page) => page.push_url(out),
        }
    }

    pub(super) fn hash(self) -> i64 {
        match self {
            Self::Nowhere => hash(PHRASE_SEED, u64::MAX),
            Self::Search(_, phrase) => hash(PHRASE_SEED, phrase),
            Self::Page(page) => page.referer_hash(),
        }
    }
}

impl User {
    fn draw(random: &mut Random, rows: usize) -> Self {
        let users = (rows as f64 * USERS_PER_ROW).max(1.0);
        let drawn = random.unit();
        let rank = (users * drawn * drawn) as u64;
        let mut own = Random::of(USER_SEED, rank);
        // Identifiers leave a bit unused, so that differences of two stay within 64 bits.
        let id = if rank == users as u64 / 2 { NAMED_USER } else { (own.bits() >> 2).cast_signed() };
        let region = own.zipf(REGIONS, 1.5);
        Self {
            id,
            region: TOP_REGIONS.get(region as usize).copied().unwrap_or(300 + region as i32),
            resolution_width: own.weighted(&[
                (1366, 24),
                (1280, 20),
                (1920, 16),
                (1024, 10),
                (1600, 8),
                (1440, 6),
                (1680, 6),
                (0, 2),
                (800, 2),
                (2560, 1),
            ]),
            phone: own.percent(6.0).then(|| {
                let model = own.zipf(PHONE_MODELS.len(), 1.2) as usize;
                // Makers have several models.
                (1 + model as i16 % 10, model)
            }),
            // Two users share an address.
            ip: address(rank / 2),
        }
    }
}

/// An address by its rank; never one of the three least, from which a query subtracts 3 within 32 bits.
fn address(rank: u64) -> i32 {
    (hash(USER_SEED, rank) as i32).max(i32::MIN + 3)
}
