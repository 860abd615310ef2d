//! A model on Redshift, through the program into profiles.

use serde_json::json;

use super::{ACCESS_KEY, SECRET_KEY, World, s3};
use crate::postgres_server::{DATABASE, READER_PASSWORD};
use crate::project::{PEOPLE, Project, Ran, counts};

fn cc(project: &Project, args: &[&str]) -> Ran {
    let mut command = project.command(args);
    command.env("DWH_PASSWORD", READER_PASSWORD).env("S3_KEY", ACCESS_KEY).env("S3_SECRET", SECRET_KEY);
    tokio::task::block_in_place(|| command.output().unwrap().into())
}

async fn becomes_profiles(unload: bool) {
    let world = World::start(unload).await;
    let psql = |sql: &str| tokio::task::block_in_place(|| world.server().psql(DATABASE, sql));
    psql(
        "CREATE TABLE customers (email varchar(100), city char(20), spent numeric(12,2), seen timestamptz, extra jsonb);
         GRANT SELECT ON customers TO reader;
         INSERT INTO customers SELECT 'p' || i || '@example.com', 'city ' || i % 10, i + 0.25,
             '2026-01-01T00:00:00Z'::timestamptz + i * interval '1 hour', jsonb_build_object('n', i) FROM generate_series(1, 5000) i;",
    );
    let s3 = if unload {
        format!(
            "    unload_bucket: s3://{}/runs\n    unload_role: {}\n    s3_endpoint: {}\n    s3_region: us-east-1\n    \
             s3_access_key_id: ${{env:S3_KEY}}\n    s3_secret_access_key: ${{env:S3_SECRET}}\n",
            s3::BUCKET,
            s3::ROLE,
            world.s3().endpoint
        )
    } else {
        String::new()
    };
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n  dwh:\n    type: redshift\n    \
             endpoint: jdbc:redshift://127.0.0.1:{}/{DATABASE}\n    user: reader\n    password: ${{env:DWH_PASSWORD}}\n    sslmode: disable\n{s3}",
            world.fake.port
        ),
    );
    let config = PEOPLE.replace("files", "dwh").replace("[city, spent]", "[city, spent, seen, extra]");
    project.model("people", &config, "SELECT * FROM customers -- all of them");
    let tested = cc(&project, &["connection", "test", "dwh"]);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    let first = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&first, ["rows", "added", "profiles_created"]), [5000, 5000, 5000]);
    let profile = cc(&project, &["profile", "email", "P7@example.com", "--output", "json"]).ok().json();
    let attributes = &profile["attributes"];
    assert_eq!(attributes["cc_people_city"], "city 7");
    assert_eq!(attributes["cc_people_seen"], "2026-01-01T07:00:00Z");
    assert_eq!(attributes["cc_people_extra"], json!({ "n": 7 }));
    assert_eq!(attributes["cc_people_spent"].to_string().trim_matches('"'), "7.25");

    psql(
        "UPDATE customers SET city = 'moved' WHERE email IN ('p1@example.com', 'p2@example.com');
         DELETE FROM customers WHERE email = 'p3@example.com';
         INSERT INTO customers (email, spent, seen) VALUES ('new@example.com', 1, now());",
    );
    let second = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&second, ["rows", "added", "changed", "removed", "unchanged"]), [5000, 1, 2, 1, 4997]);
    let moved = cc(&project, &["profile", "email", "p2@example.com", "--output", "json"]).ok().json();
    assert_eq!(moved["attributes"]["cc_people_city"], "moved");
    let third = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(third["status"], "unchanged");

    let wrong: Ran = tokio::task::block_in_place(|| {
        project.command(&["run"]).env("DWH_PASSWORD", "wr0ng-s3cret").env("S3_KEY", "k").env("S3_SECRET", "x").output()
    })
    .unwrap()
    .into();
    assert!(wrong.code != Some(0) && !format!("{wrong:?}").contains("wr0ng-s3cret"), "{wrong:?}");
    if unload {
        assert_eq!(s3::objects(world.s3()).await, Vec::<String>::new());
        assert!(world.fake.state.unloads.load(std::sync::atomic::Ordering::SeqCst) >= 3);
    }
    world.sent_nothing_that_redshift_refuses();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_model_on_redshift_becomes_profiles_and_follows_its_changes() {
    becomes_profiles(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_model_on_redshift_through_s3_becomes_profiles_and_follows_its_changes() {
    becomes_profiles(true).await;
}
