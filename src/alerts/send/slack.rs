//! A Slack incoming webhook: Block Kit, with a plain text for notifications. Slack's limits: a header of 150 characters,
//! a text of 3,000, fields of 2,000 and ten of them.

use serde_json::{Value, json};

use super::cut;
use crate::alerts::notice::{Notice, NoticeKind};

pub(super) fn body(notice: &Notice) -> Value {
    let mark = match notice.kind {
        NoticeKind::Alert | NoticeKind::Reminder => "🔴",
        NoticeKind::Recovery => "🟢",
        NoticeKind::Test => "🔵",
    };
    let title = format!("{mark} {}", notice.title());
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": cut(&title, 150), "emoji": true } }),
        section(&escaped(&notice.finding.summary)),
    ];
    if let Some(error) = &notice.finding.error {
        blocks.push(section(&format!("```{}```", escaped(error).replace("```", "'''"))));
    }
    if let Some(hint) = &notice.finding.hint {
        blocks.push(section(&format!("*What to do:* {}", escaped(hint))));
    }
    let fields: Vec<Value> = notice
        .facts()
        .iter()
        .take(10)
        .map(|(label, value)| json!({ "type": "mrkdwn", "text": cut(&format!("*{label}*\n{}", escaped(value)), 2000) }))
        .collect();
    if !fields.is_empty() {
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    if let Some(url) = &notice.url {
        blocks.push(section(&format!("<{}|Open the run>", escaped(url))));
    }
    json!({ "text": escaped(&format!("{title}: {}", notice.finding.summary)), "blocks": blocks })
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": cut(text, 3000) } })
}

/// Slack reads `<…>` as links and mentions: nothing of an error's text may ring a whole channel.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
