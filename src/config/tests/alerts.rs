//! `alerts:` and `service:`

use super::*;

const CHANNELS: &str = "
  channels:
    chat: { type: slack, url: \"https://hooks.slack.com/services/T0/B0/hunter2\" }
    mail:
      type: email
      host: smtp.example.com
      from: Alerts <alerts@example.com>
      to: [ada@example.com, \"${env:SECOND}\"]
";

fn with(alerts: &str) -> Case {
    let case = Case::model(MODEL);
    case.write(PROJECT_FILE, &format!("{PROJECT}alerts:{alerts}"));
    case
}

fn rule(rule: &str) -> Case {
    with(&format!("{CHANNELS}  rules:\n    r: {rule}\n"))
}

#[test]
fn a_rule_watches_failures_holds_and_lateness_of_all_models_when_nothing_else_is_said() {
    let project = rule("{ channels: [chat, mail] }").load().unwrap();
    let rule = &project.alerts.rules["r"];
    assert!(rule.failed && rule.held && !rule.empty && rule.recovery);
    assert_eq!(rule.late_after, Some(std::time::Duration::from_secs(900)));
    assert!(rule.covers(&project.models["m"]));
    assert_eq!((rule.size, rule.quarantined_percent, rule.remind_every), (None, None, None));
    assert_eq!(project.alerts.channels["mail"].kind.as_str(), "email");
}

#[test]
fn limits_are_kept_as_whole_numbers() {
    let text = "{ channels: chat, on: [], size: { min: 10, variance_percent: 12.34 }, change_rate: { max_percent: 0.5, runs: 3 } }";
    let project = rule(text).load().unwrap();
    let rule = &project.alerts.rules["r"];
    assert!(!rule.failed && !rule.held && rule.late_after.is_none());
    let size = rule.size.unwrap();
    assert_eq!((size.min, size.max, size.variance, size.runs), (Some(10), None, Some(1234), 7));
    let rate = rule.change_rate.unwrap();
    assert_eq!((rate.max, rate.runs), (Some(5000), 3));
}

#[test]
fn a_rule_of_one_model_does_not_cover_another() {
    let project = rule("{ channels: chat, connections: [ebikes] }").load().unwrap();
    let mut model = project.models["m"].clone();
    assert!(project.alerts.rules["r"].covers(&model));
    model.connection = "other".into();
    assert!(!project.alerts.rules["r"].covers(&model));
}

#[test]
fn what_a_rule_names_has_to_be_there() {
    rule("{ channels: [chatt] }").expect("unknown-name", 17, 21, "no channel `chatt`", "`chat`");
    rule("{ channels: chat, models: [mm] }").expect("unknown-name", 17, 35, "no model `mm`", "`m`");
    rule("{ channels: chat, connections: [ebike] }").expect(
        "unknown-name",
        17,
        40,
        "no connection `ebike`",
        "`ebikes`",
    );
    rule("{ channels: chat, on: [anomaly] }").expect("unknown-condition", 17, 31, "`anomaly`", "variance_percent");
    rule("{ on: [failed] }").expect("missing-key", 17, 5, "no `channels`", "name the channels");
}

#[test]
fn limits_that_say_nothing_or_allow_nothing_are_faults() {
    rule("{ channels: chat, size: {} }").expect("missing-key", 17, 26, "`size` sets no limit", "`min`");
    rule("{ channels: chat, size: { min: 2, max: 1 } }").expect("out-of-range", 17, 26, "allows nothing", "least");
    rule("{ channels: chat, size: { min: 2, runs: 2 } }").expect("out-of-range", 17, 42, "from 3 to 100", "7");
}

#[test]
fn a_model_whose_own_files_are_faulty_is_there_all_the_same() {
    let case = rule("{ channels: chat, models: [m] }");
    case.write("models/m.yml", "connection: ebikes\n");
    assert!(case.errors().iter().all(|error| error.code != "unknown-name"));
}

#[test]
fn a_channel_takes_the_keys_of_its_type() {
    let channel = |text: &str| with(&format!("\n  channels:\n    c: {text}\n"));
    channel("{ type: pager }").expect("unknown-type", 10, 16, "`pager`", "the types are");
    channel("{ type: slack }").expect("missing-key", 10, 5, "no `url`", "webhook");
    let secret = channel("{ type: slack, url: \"${env:A}\", secret: x }");
    secret.expect("unknown-key", 10, 40, "`secret` is not a key", "webhook");
    channel("{ type: webhook, url: ftp://x/ }").expect("invalid-url", 10, 25, "http", "https://");
    let mail = "{ type: email, host: h, from: nobody, to: ada@example.com }";
    channel(mail).expect("invalid-address", 10, 32, "`nobody`", "name@example.com");
    let port = "{ type: email, host: h, from: a@b.c, to: a@b.c, port: 70000 }";
    channel(port).expect("out-of-range", 10, 56, "65535", "587");
}

#[test]
fn letters_leave_this_machine_encrypted_only() {
    let mail = |host: &str| {
        let mail = format!("type: email, security: none, host: {host}, from: a@b.c, to: a@b.c");
        with(&format!("\n  channels:\n    c: {{ {mail} }}\n"))
    };
    mail("mail.example.com").expect("unencrypted", 10, 23, "on this machine", "starttls");
    assert!(mail("localhost").load().is_ok());
}

#[test]
fn a_webhooks_address_is_in_no_message_snippet_or_debug_text() {
    let case = rule("{ channels: nobody }");
    let shown = case.load().unwrap_err().render(false);
    assert!(!shown.contains("hunter2"), "{shown}");
    let mistyped = with("\n  channels:\n    c: { type: slack, ulr: \"https://hooks.slack.com/hunter2\" }\n");
    assert!(!mistyped.load().unwrap_err().render(false).contains("hunter2"));
    let broken = with("\n  channels:\n    c: { type: slack, url: https://hooks.slack.com/hunter2\n  x: [\n");
    assert!(!broken.load().unwrap_err().render(false).contains("hunter2"));
    let project = rule("{ channels: chat }").load().unwrap();
    assert!(!format!("{project:?}").contains("hunter2"));
}

#[test]
fn the_service_section_says_where_it_is_reached_and_where_it_may_reach() {
    let case = Case::model(MODEL);
    let service = "service: { public_url: 'https://x.example/', allow_private_addresses: [10.0.0.0/8, 127.0.0.1] }";
    case.write(PROJECT_FILE, &format!("{PROJECT}{service}\n"));
    let service = case.load().unwrap().service;
    assert_eq!(service.public_url.unwrap().as_str(), "https://x.example");
    assert_eq!(service.allow_private_addresses[1].to_string(), "127.0.0.1/32");
    case.write(PROJECT_FILE, &format!("{PROJECT}service: {{ allow_private_addresses: 10.0.0.0/33 }}\n"));
    case.expect("invalid-network", 8, 37, "10.0.0.0/33", "10.0.0.0/8");
}
