//! Invented names. Any likeness to a real brand or person is chance.

pub const FIRST_NAMES: &[&str] = &[
    "Ada", "Aino", "Amara", "Anouk", "Bela", "Bruno", "Carla", "Cem", "Chiara", "Dario", "Dilan", "Elif", "Emil",
    "Enzo", "Esra", "Femke", "Finn", "Freja", "Greta", "Hana", "Hugo", "Ines", "Ivo", "Jana", "Jonas", "Kaja", "Kofi",
    "Lars", "Lea", "Lina", "Luca", "Maja", "Malik", "Marta", "Mats", "Mila", "Nadia", "Nils", "Noor", "Olga", "Oskar",
    "Paula", "Petra", "Rafael", "Ravi", "Rosa", "Sanne", "Selma", "Sofia", "Tariq", "Tess", "Theo", "Tilda", "Umar",
    "Vera", "Viggo", "Wanda", "Yara", "Yusuf", "Zoe",
];

pub const LAST_NAMES: &[&str] = &[
    "Achterberg",
    "Almeida",
    "Andersen",
    "Arslan",
    "Baker",
    "Bakker",
    "Bauer",
    "Bianchi",
    "Blom",
    "Bouchard",
    "Carlsen",
    "Castro",
    "Conti",
    "Dahl",
    "Demir",
    "Dubois",
    "Eklund",
    "Ferrari",
    "Fischer",
    "Fontaine",
    "Garcia",
    "Haugen",
    "Hoffmann",
    "Holm",
    "Iversen",
    "Jansen",
    "Kaya",
    "Keller",
    "Kowalski",
    "Krause",
    "Lambert",
    "Lindqvist",
    "Lopez",
    "Marino",
    "Meyer",
    "Moreau",
    "Nielsen",
    "Novak",
    "Nowak",
    "Okafor",
    "Olsen",
    "Petit",
    "Peters",
    "Ricci",
    "Rossi",
    "Santos",
    "Schmid",
    "Silva",
    "Sorensen",
    "Svensson",
    "Vandenberg",
    "Visser",
    "Weber",
    "Winter",
    "Wouters",
    "Yilmaz",
    "Zimmermann",
];

/// Country, its share of the customers, cities.
pub const COUNTRIES: &[(&str, f64, &[&str])] = &[
    ("DE", 30.0, &["Berlin", "Hamburg", "Freiburg", "Leipzig", "Munich"]),
    ("NL", 22.0, &["Amsterdam", "Utrecht", "Groningen", "Eindhoven"]),
    ("FR", 14.0, &["Lyon", "Nantes", "Paris", "Strasbourg"]),
    ("DK", 10.0, &["Copenhagen", "Aarhus", "Odense"]),
    ("BE", 8.0, &["Ghent", "Antwerp", "Leuven"]),
    ("SE", 6.0, &["Malmo", "Gothenburg", "Stockholm"]),
    ("IT", 6.0, &["Bologna", "Milan", "Turin"]),
    ("AT", 4.0, &["Vienna", "Graz"]),
];

/// Brand and what makes it cheap or dear.
pub const EBIKE_BRANDS: &[(&str, f64)] = &[
    ("Veloria", 1.0),
    ("Nordpedal", 1.15),
    ("Kestrel Cycles", 1.4),
    ("Ampero", 0.8),
    ("Tideway", 0.95),
    ("Gravit", 1.7),
];
pub const PART_BRANDS: &[&str] = &["Brightspoke", "Lockwell", "Ampero", "Nordpedal"];

/// Model name and price in euro.
pub const EBIKE_MODELS: &[(&str, f64)] =
    &[("City", 2190.0), ("Trek", 2890.0), ("Cargo", 4590.0), ("Fold", 1790.0), ("Trail", 3790.0)];
pub const ACCESSORIES: &[(&str, f64)] = &[
    ("Helmet", 89.0),
    ("Folding Lock", 79.0),
    ("Panniers", 119.0),
    ("Child Seat", 149.0),
    ("Rain Cape", 45.0),
    ("Phone Mount", 29.0),
    ("Front Light", 59.0),
    ("Basket", 39.0),
];
pub const PARTS: &[(&str, f64)] = &[
    ("Battery 500 Wh", 549.0),
    ("Battery 750 Wh", 749.0),
    ("Charger", 99.0),
    ("Tyre Set", 69.0),
    ("Brake Pads", 25.0),
];
pub const SERVICES: &[(&str, f64)] =
    &[("Yearly Service", 129.0), ("Theft Insurance", 149.0), ("Home Delivery", 49.0), ("Battery Check", 39.0)];

pub const COMPANY_HEADS: &[&str] = &[
    "Canal",
    "Harbour",
    "Green Mile",
    "Lakeside",
    "Old Town",
    "Parcel",
    "Quick Wheel",
    "Riverside",
    "Station",
    "Sunrise",
    "Two Bridges",
    "Uphill",
    "Westend",
    "Windmill",
];
pub const COMPANY_TAILS: &[&str] =
    &["Bikes", "Couriers", "Cycle Hire", "Deliveries", "Fleet", "Hotels", "Logistics", "Mobility", "Rentals", "Wheels"];
/// Plan, its share, seats from and to, the features that come with it.
pub const PLANS: &[(&str, f64, i64, i64, &[&str])] = &[
    ("starter", 50.0, 1, 6, &["invoicing"]),
    ("fleet", 35.0, 5, 40, &["invoicing", "fleet_map"]),
    ("enterprise", 15.0, 30, 250, &["invoicing", "fleet_map", "single_sign_on", "priority_service"]),
];
/// Bought on top, and how often.
pub const OPTIONS: &[(&str, f64)] = &[("theft_protection", 0.45), ("battery_swap", 0.3), ("usage_reports", 0.4)];

pub const DEVICES: &[&str] = &["mobile", "mobile", "mobile", "desktop", "desktop", "tablet"];
