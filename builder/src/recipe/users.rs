//! `rootfs.users`: from what was written to what it means.

use std::collections::BTreeSet;

use super::decode::At;
use super::defaults::Defaults;
use super::diagnostic::Warning;
use super::model::{Password, User, UserId};
use super::names;
use super::password;
use super::resolve::Resolver;
use super::written;

impl Resolver<'_, '_> {
    pub(super) fn users(&mut self, written: Vec<written::User>) -> Vec<User> {
        let mut seen = BTreeSet::new();
        let mut users = Vec::new();
        for (index, user) in written.into_iter().enumerate() {
            let path = format!("rootfs.users[{index}]");
            let key = |key: &str| format!("{path}.{key}");
            let at = user.name.at;
            let name = self.checked(user.name, &key("name"), names::user);
            self.once(&mut seen, name.clone(), at, &path);
            users.push(User {
                password: self.password(user.password, &name, &key("password")),
                ssh_keys: self
                    .all_checked(user.ssh_keys, &key("ssh_keys"), names::ssh_key)
                    .iter()
                    .map(|line| line.trim_end().to_owned())
                    .collect(),
                uid: user
                    .uid
                    .map_or(UserId::Free, |uid| UserId::Given(uid.value)),
                shell: match user.shell {
                    Some(shell) => self.passwd_path(shell, &key("shell")),
                    None => Defaults::SHELL.to_owned(),
                },
                home: match user.home {
                    Some(home) => self.passwd_path(home, &key("home")),
                    None => Defaults::home(&name),
                },
                groups: self.all_checked(user.groups, &key("groups"), names::user),
                name,
            });
        }
        users
    }

    fn passwd_path(&mut self, text: At<String>, path: &str) -> String {
        let at = text.at;
        let value = self.checked(text, path, names::passwd_field);
        self.checked(At { value, at }, path, names::guest_path)
    }

    fn password(
        &mut self,
        written: Option<At<written::Password>>,
        user: &str,
        path: &str,
    ) -> Password {
        let Some(password) = written else {
            return Password::Locked;
        };
        let checked = match password.value {
            written::Password::Locked => Ok(Password::Locked),
            written::Password::Hash(hash) => {
                names::password_hash(&hash).map(|()| Password::Hash(hash))
            }
            written::Password::Plain(plain) => {
                let message = format!(
                    "{path}: a plain password can be read by everyone who has the recipe; a hash made by 'openssl passwd -6' cannot"
                );
                self.warnings.push(Warning {
                    file: self.d.source.file.to_owned(),
                    place: self.d.source.place(password.at),
                    message,
                });
                let good = !plain.is_empty() && !plain.contains(char::is_control);
                match good {
                    true => password::hash(user, &plain).map(Password::Hash),
                    false => Err("empty, or with control characters".to_owned()),
                }
            }
        };
        checked.unwrap_or_else(|reason| {
            self.d.reject(password.at, path, reason);
            Password::Locked
        })
    }
}
