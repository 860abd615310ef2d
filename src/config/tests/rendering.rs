use super::*;

#[test]
fn five_faults_are_rendered_with_place_caret_and_hint() {
    let case = Case::new(&[
        (PROJECT_FILE, PROJECT),
        (
            "models/m.yml",
            "nmae: Holiday buyers\nconnection: ebike\nprimary_key: email\nexternal_key: phone\nactivated_fields:\n  - brand\n  - email\nschedule: every 10s\n",
        ),
        ("models/m.sql", "select 1"),
    ]);
    let expected = include_str!("five_faults.txt");
    let rendered = case.load().unwrap_err().render(false);
    assert_eq!(rendered, expected, "\n{rendered}");
}

#[test]
fn colour_is_only_given_when_asked_for() {
    let errors = Case::model("nmae: x\n").load().unwrap_err();
    assert!(!errors.render(false).contains('\u{1b}'));
    assert!(errors.render(true).contains('\u{1b}'));
}

#[test]
fn json_holds_place_code_message_and_hint() {
    let errors = Case::model(&format!("{MODEL}activ: true\n")).load().unwrap_err();
    assert_eq!(
        serde_json::to_value(&errors).unwrap(),
        serde_json::json!([{
            "file": "models/m.yml", "line": 5, "column": 1, "code": "unknown-key",
            "message": "`activ` is not a key of a model", "hint": "did you mean `active`?",
        }])
    );
}
