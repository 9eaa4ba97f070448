//! What texts are made of.

use crate::random::{Random, mix};

/// Parts of addresses.
pub(super) const ADDRESS_WORDS: [&str; 64] = [
    "auto",
    "forum",
    "news",
    "video",
    "foto",
    "shop",
    "market",
    "play",
    "game",
    "music",
    "kino",
    "film",
    "book",
    "price",
    "catalog",
    "search",
    "user",
    "profile",
    "photo",
    "album",
    "topic",
    "thread",
    "sport",
    "world",
    "city",
    "house",
    "garden",
    "travel",
    "hotel",
    "ticket",
    "work",
    "job",
    "rabota",
    "real",
    "estate",
    "kvartira",
    "moto",
    "parts",
    "zapchasti",
    "tovary",
    "detail",
    "sale",
    "offer",
    "items",
    "women",
    "kids",
    "mama",
    "recipe",
    "cook",
    "health",
    "doctor",
    "weather",
    "bank",
    "money",
    "credit",
    "law",
    "school",
    "english",
    "lib",
    "club",
    "radio",
    "online",
    "smotret",
    "skachat",
];

/// Ends of host names.
pub(super) const TOP_DOMAINS: [&str; 8] = [".ru", ".ru", ".ru", ".com", ".ua", ".net", ".com.tr", ".info"];

/// Words of titles and searches.
pub(super) const WORDS: [&str; 64] = [
    "карелия",
    "купить",
    "смотреть",
    "онлайн",
    "бесплатно",
    "скачать",
    "цена",
    "продажа",
    "авто",
    "новости",
    "погода",
    "москва",
    "санкт",
    "петербург",
    "работа",
    "квартира",
    "дом",
    "дача",
    "отдых",
    "море",
    "билеты",
    "поезд",
    "расписание",
    "карта",
    "фото",
    "видео",
    "фильм",
    "сериал",
    "серия",
    "сезон",
    "музыка",
    "песня",
    "текст",
    "игры",
    "девочек",
    "мальчиков",
    "рецепт",
    "салат",
    "торт",
    "диета",
    "врач",
    "больница",
    "школа",
    "класс",
    "учебник",
    "решебник",
    "английский",
    "перевод",
    "словарь",
    "книга",
    "читать",
    "форум",
    "отзывы",
    "ремонт",
    "своими",
    "руками",
    "телефон",
    "samsung",
    "nokia",
    "bmw",
    "запчасти",
    "двигатель",
    "область",
    "2013",
];

/// Models of phones; the queries leave out the empty one.
pub(super) const PHONE_MODELS: [&str; 24] = [
    "iPad",
    "iPhone",
    "A500",
    "N8-00",
    "GT-I9300",
    "GT-P5100",
    "GT-N7000",
    "ONE TOUCH 6030A",
    "GT-P7300B",
    "3110000",
    "GT-I9500",
    "iPho",
    "eagle75",
    "C6-00",
    "HTC Desire",
    "LT26i",
    "Lumia 920",
    "Nexus 7",
    "Xperia S",
    "RM-846",
    "Asha 302",
    "Optimus L5",
    "XT1032",
    "S5830",
];

/// The words of a search or title: rank decides which, and rare ones are longer.
pub(super) fn push_phrase(out: &mut String, seed: u64, rank: u64) {
    let mut random = Random::of(seed, rank);
    // Two words are 4096 phrases, each further word 64 times as many: ranks of a kind seldom share a phrase.
    let words = 2 + (64 - (rank + 1).leading_zeros() as u64) / 7 + random.below(2);
    for word in 0..words {
        if word > 0 {
            out.push(' ');
        }
        out.push_str(random.choose(&WORDS));
    }
}

/// Appends a number in decimal digits.
pub(super) fn push_number(out: &mut String, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

/// A number for hash columns: any 64 bits.
pub(super) fn hash(seed: u64, rank: u64) -> i64 {
    mix(seed ^ mix(rank)).cast_signed()
}
