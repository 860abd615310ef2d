//! A Microsoft Teams workflow that begins with "When a Teams webhook request is received": a message with one Adaptive
//! Card. Texts are runs of a `RichTextBlock`, which shows them as they are: a `TextBlock` would read them as Markdown.

use serde_json::{Value, json};

use crate::alerts::notice::{Notice, NoticeKind};

pub(super) fn body(notice: &Notice) -> Value {
    let color = match notice.kind {
        NoticeKind::Alert | NoticeKind::Reminder => "attention",
        NoticeKind::Recovery => "good",
        NoticeKind::Test => "accent",
    };
    let mut title = run(&notice.title());
    title["size"] = json!("large");
    title["weight"] = json!("bolder");
    title["color"] = json!(color);
    let mut card = vec![block(vec![title]), block(vec![run(&notice.finding.summary)])];
    if let Some(error) = &notice.finding.error {
        let mut error = run(error);
        error["fontType"] = json!("monospace");
        card.push(block(vec![error]));
    }
    if let Some(hint) = &notice.finding.hint {
        card.push(block(vec![label("What to do: "), run(hint)]));
    }
    for (name, value) in notice.facts() {
        card.push(block(vec![label(&format!("{name}: ")), run(&value)]));
    }
    let mut content = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": card,
    });
    if let Some(url) = &notice.url {
        content["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Open the run", "url": url }]);
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": content,
        }],
    })
}

fn block(inlines: Vec<Value>) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

fn run(text: &str) -> Value {
    json!({ "type": "TextRun", "text": text })
}

fn label(text: &str) -> Value {
    json!({ "type": "TextRun", "text": text, "weight": "bolder" })
}
