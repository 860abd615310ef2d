use super::*;
use crate::config::write::{InitError, init};

#[test]
fn what_init_writes_is_a_valid_project_and_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("new/project");
    let made = init(&root).unwrap();
    assert!(made.contains(&PathBuf::from(".gitignore")));
    assert!(made.iter().all(|path| root.join(path).is_file()));
    let project = load_with(&root, PROVIDERS, &|_| None).unwrap();
    assert_eq!(project.models["example"].activated_fields.len(), 5);

    std::fs::write(root.join("cloud-connect.yml"), "mine").unwrap();
    std::fs::remove_file(root.join("data/orders.csv")).unwrap();
    let Err(InitError::Exists(existing)) = init(&root) else { panic!("init has overwritten something") };
    assert_eq!(existing.len(), 4);
    assert_eq!(std::fs::read_to_string(root.join("cloud-connect.yml")).unwrap(), "mine");
    assert!(!root.join("data/orders.csv").exists());
}

#[test]
fn init_keeps_a_gitignore() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".gitignore"), "/target\n").unwrap();
    assert!(!init(dir.path()).unwrap().contains(&PathBuf::from(".gitignore")));
    assert_eq!(std::fs::read_to_string(dir.path().join(".gitignore")).unwrap(), "/target\n");
}
