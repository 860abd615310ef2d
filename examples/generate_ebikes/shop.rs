//! The shop: who buys what, when, and who comes back.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeDelta, Utc};

use crate::random::{Random, Weights};
use crate::words;

#[derive(serde::Serialize)]
pub struct Account {
    pub account_id: i64,
    pub company: String,
    pub plan: &'static str,
    pub seats: i64,
    pub features: Vec<&'static str>,
}

pub struct Customer {
    pub customer_id: i64,
    pub email: Option<String>,
    pub first_name: &'static str,
    pub last_name: &'static str,
    pub country: &'static str,
    pub city: &'static str,
    pub account_id: Option<i64>,
    pub marketing_opt_in: bool,
    pub created_at: DateTime<Utc>,
    pub last_login_at: Option<DateTime<Utc>>,
}

pub struct Product {
    pub product_id: i64,
    pub brand: &'static str,
    pub model: String,
    pub category: &'static str,
    pub price_cents: i64,
}

/// Amount and time as the till exported them: text, which may be anything.
pub struct Purchase {
    pub purchase_id: i64,
    pub customer_id: i64,
    pub product_id: i64,
    pub quantity: i64,
    pub amount: String,
    pub purchased_at: String,
    pub channel: &'static str,
}

pub struct Session {
    pub session_id: i64,
    pub customer_id: i64,
    pub started_at: DateTime<Utc>,
    pub device: &'static str,
    pub pages: i64,
}

pub struct Shop {
    pub accounts: Vec<Account>,
    pub customers: Vec<Customer>,
    pub products: Vec<Product>,
    pub purchases: Vec<Purchase>,
    pub sessions: Vec<Session>,
}

/// Purchases by month of the year: a spring season, and the holidays.
const SEASON: [f64; 12] = [0.5, 0.6, 1.0, 1.4, 1.6, 1.5, 1.1, 0.9, 0.9, 0.8, 1.9, 2.6];
const MONTHS_OF_PURCHASES: u32 = 29;
const MONTHS_OF_CUSTOMERS: i64 = 46;

impl Shop {
    /// Clean but for these rows:
    /// - every 400th customer has no e-mail;
    /// - customers 12 and 13 have not logged in for long and share an e-mail but for case and white space;
    /// - the biggest spender's last purchase has the amount `n/a`, the second biggest spender's an impossible time.
    pub fn make(seed: u64, scale: f64, as_of: NaiveDate) -> Self {
        let rows = |count: f64| ((count * scale).round() as i64).max(20);
        let random = |table: u64| Random::new(seed.wrapping_mul(31).wrapping_add(table));
        let end = as_of.and_time(chrono::NaiveTime::MIN).and_utc();
        let products = products(&mut random(1));
        let accounts = accounts(&mut random(2), rows(250.0));
        let mut customers = customers(&mut random(3), rows(3000.0), &accounts, end);
        let purchases = purchases(&mut random(4), rows(6000.0), &customers, &products, as_of);
        let sessions = sessions(&mut random(5), rows(12_000.0), &customers, end);
        for session in &sessions {
            let login = &mut customers[session.customer_id as usize - 1].last_login_at;
            *login = (*login).max(Some(session.started_at));
        }
        let mut shop = Self { accounts, customers, products, purchases, sessions };
        shop.dirty(end);
        shop
    }

    fn dirty(&mut self, end: DateTime<Utc>) {
        for customer in self.customers.iter_mut().filter(|c| c.customer_id % 400 == 0) {
            customer.email = None;
        }
        for (id, email) in [(12, "Robin.Winter@example.com"), (13, "robin.winter@example.com ")] {
            let customer = &mut self.customers[id - 1];
            customer.email = Some(email.to_owned());
            customer.marketing_opt_in = true;
            customer.created_at = end - TimeDelta::days(900);
            customer.last_login_at = Some(end - TimeDelta::days(200));
            self.sessions.retain(|session| session.customer_id != id as i64);
        }
        let mut spent = vec![0.0_f64; self.customers.len()];
        let mut last = vec![0; self.customers.len()];
        for (index, purchase) in self.purchases.iter().enumerate() {
            let customer = purchase.customer_id as usize - 1;
            spent[customer] += purchase.amount.parse::<f64>().unwrap_or(0.0);
            last[customer] = index;
        }
        let mut spenders: Vec<usize> = (0..spent.len()).collect();
        spenders.sort_by(|a, b| spent[*b].total_cmp(&spent[*a]));
        // their other purchases keep them at the top
        self.purchases[last[spenders[0]]].amount = "n/a".to_owned();
        self.purchases[last[spenders[1]]].purchased_at = "2026-13-45T25:61:00Z".to_owned();
    }
}

fn products(random: &mut Random) -> Vec<Product> {
    let mut products = Vec::new();
    let mut add = |brand, model: String, category, price: f64| {
        let product_id = 100 + products.len() as i64;
        products.push(Product { product_id, brand, model, category, price_cents: (price * 100.0) as i64 });
    };
    for (brand, factor) in words::EBIKE_BRANDS {
        for (model, price) in words::EBIKE_MODELS {
            let price = (price * factor / 10.0).round() * 10.0 - 1.0;
            add(brand, format!("{model} {}", random.pick(&["One", "Plus", "Pro", "S"])), "e-bike", price);
        }
    }
    for (category, goods) in [("accessory", words::ACCESSORIES), ("part", words::PARTS)] {
        for (model, price) in goods {
            for _ in 0..2 {
                let factor = random.between(80, 140) as f64 / 100.0;
                add(random.pick(words::PART_BRANDS), (*model).to_owned(), category, (price * factor).round() - 0.1);
            }
        }
    }
    for (model, price) in words::SERVICES {
        add("Shop", (*model).to_owned(), "service", *price);
    }
    products
}

fn accounts(random: &mut Random, count: i64) -> Vec<Account> {
    let plans = Weights::new(words::PLANS.iter().map(|plan| plan.1));
    let account = |account_id| {
        let (plan, _, from, to, included) = words::PLANS[random.weighted(&plans)];
        let mut features = included.to_vec();
        features.extend(words::OPTIONS.iter().filter(|option| random.chance(option.1)).map(|option| option.0));
        let company = format!("{} {}", random.pick(words::COMPANY_HEADS), random.pick(words::COMPANY_TAILS));
        Account { account_id, company, plan, seats: random.between(from, to), features }
    };
    (1..=count).map(account).collect()
}

fn customers(random: &mut Random, count: i64, accounts: &[Account], end: DateTime<Utc>) -> Vec<Customer> {
    let countries = Weights::new(words::COUNTRIES.iter().map(|country| country.1));
    let customer = |customer_id| {
        let (country, _, cities) = words::COUNTRIES[random.weighted(&countries)];
        let (first_name, last_name) = (random.pick(words::FIRST_NAMES), random.pick(words::LAST_NAMES));
        let host = random.pick(&["example.com", "example.org", "example.net"]);
        let created_at = end - TimeDelta::minutes(random.between(1440, MONTHS_OF_CUSTOMERS * 30 * 1440));
        let quiet = random.chance(0.7).then(|| created_at + (end - TimeDelta::days(365) - created_at) / 2);
        Customer {
            customer_id,
            email: Some(format!("{first_name}.{last_name}{customer_id}@{host}").to_lowercase()),
            first_name,
            last_name,
            country,
            city: random.pick(cities),
            account_id: random
                .chance(0.14)
                .then(|| accounts[random.between(0, accounts.len() as i64) as usize].account_id),
            marketing_opt_in: random.chance(0.62),
            created_at,
            // those who have sessions get the last one's time
            last_login_at: quiet.filter(|at| *at > created_at),
        }
    };
    (1..=count).map(customer).collect()
}

/// Few people buy much: the weights of a Pareto distribution.
fn loyalty(random: &mut Random, customers: &[Customer]) -> Weights {
    Weights::new(customers.iter().map(|customer| {
        let own = (1.0_f64 - random.unit()).powf(-0.55);
        if customer.account_id.is_some() { own * 2.0 } else { own }
    }))
}

fn purchases(
    random: &mut Random,
    count: i64,
    customers: &[Customer],
    products: &[Product],
    as_of: NaiveDate,
) -> Vec<Purchase> {
    let loyalty = loyalty(random, customers);
    let popularity = Weights::new(products.iter().map(|product| match product.category {
        "e-bike" => 3.0 * 200_000.0 / product.price_cents as f64 * random.unit().max(0.2),
        "service" => 2.0,
        _ => 0.4 + 2.0 * random.unit(),
    }));
    // whole months before the last day, each as busy as its season and a little busier every year
    let months: Vec<NaiveDate> = (1..=MONTHS_OF_PURCHASES).rev().map(|ago| as_of - Months::new(ago)).collect();
    let busy = Weights::new(
        months.iter().enumerate().map(|(i, month)| SEASON[month.month0() as usize] * (1.0 + 0.01 * i as f64)),
    );
    let mut sales: Vec<(DateTime<Utc>, usize, usize)> = Vec::new();
    while (sales.len() as i64) < count {
        let month = months[random.weighted(&busy)];
        let day = month + Days::new(random.between(0, 31) as u64);
        let at =
            day.and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::seconds(random.between(7 * 3600, 22 * 3600));
        let customer = random.weighted(&loyalty);
        if day < as_of && customers[customer].created_at <= at {
            sales.push((at, customer, random.weighted(&popularity)));
        }
    }
    sales.sort_unstable();
    let purchase = |(index, (at, customer, product)): (usize, (DateTime<Utc>, usize, usize))| {
        let (customer, product) = (&customers[customer], &products[product]);
        let quantity = match (customer.account_id, product.category) {
            (Some(_), "e-bike") => random.between(1, 7),
            (Some(_), _) => random.between(1, 13),
            (None, "accessory" | "part") => random.between(1, 3),
            (None, _) => 1,
        };
        let holiday = at.month() >= 11 && product.category != "service";
        let cents = quantity * product.price_cents * if holiday { 90 } else { 100 } / 100;
        Purchase {
            purchase_id: 10_001 + index as i64,
            customer_id: customer.customer_id,
            product_id: product.product_id,
            quantity,
            amount: format!("{}.{:02}", cents / 100, cents % 100),
            purchased_at: at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            channel: match customer.account_id {
                Some(_) => "sales",
                None => random.pick(&["web", "web", "web", "app", "app", "store"]),
            },
        }
    };
    sales.into_iter().enumerate().map(purchase).collect()
}

/// Visits of the last year, more of them lately. Two people in five never come.
fn sessions(random: &mut Random, count: i64, customers: &[Customer], end: DateTime<Utc>) -> Vec<Session> {
    let visitors = Weights::new(
        customers.iter().map(|_| if random.chance(0.4) { 0.0 } else { (1.0_f64 - random.unit()).powf(-0.5) }),
    );
    let mut visits: Vec<(DateTime<Utc>, usize)> = Vec::new();
    while (visits.len() as i64) < count {
        let ago = random.unit().powf(1.6) * 365.0 * 86_400.0;
        let at = end - TimeDelta::seconds(1 + ago as i64);
        let customer = random.weighted(&visitors);
        if customers[customer].created_at <= at {
            visits.push((at, customer));
        }
    }
    visits.sort_unstable();
    let session = |(index, (started_at, customer)): (usize, (DateTime<Utc>, usize))| Session {
        session_id: 500_001 + index as i64,
        customer_id: customers[customer].customer_id,
        started_at,
        device: random.pick(words::DEVICES),
        pages: 1 + (random.unit().powi(3) * 24.0) as i64,
    };
    visits.into_iter().enumerate().map(session).collect()
}
