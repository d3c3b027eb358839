//! `rootfs`: from what was written to what it means.

use std::collections::BTreeSet;
use std::path::Path;

use super::decode::At;
use super::defaults::Defaults;
use super::diagnostic::Position;
use super::model::{
    Disk, FileContent, FileEntry, Owner, Rootfs, Services, Source, Tarball, TarballLocation,
};
use super::names;
use super::resolve::Resolver;
use super::written;

impl Resolver<'_, '_> {
    pub(super) fn rootfs(&mut self, written: written::Rootfs, name: &str) -> Option<Rootfs> {
        if matches!(&written.source, written::Source::Debian(debian) if debian.unpack_only.is_some())
        {
            self.refuse_what_needs_configured(&written);
        }
        let source = match written.source {
            written::Source::Debian(debian) => Some(Source::Debian(Box::new(self.debian(*debian)))),
            written::Source::Tarball(tarball) => self.tarball(tarball).map(Source::Tarball),
            written::Source::Disk(disk) => self.disk(disk).map(Source::Disk),
        };
        let hostname = match written.hostname {
            Some(hostname) => self.checked(hostname, "rootfs.hostname", names::hostname),
            None => name.to_owned(),
        };
        let files = self.files(written.files);
        let users = self.users(written.users);
        let services = Services {
            enable: self.all_checked(written.enable, "rootfs.services.enable", names::unit),
            disable: self.all_checked(written.disable, "rootfs.services.disable", names::unit),
        };
        let run = written.run.into_iter().enumerate();
        let run = run
            .map(|(index, step)| self.run_step(index, step))
            .collect();
        let readonly = written.readonly.map(|written| self.readonly(written));
        Some(Rootfs {
            source: source?,
            hostname,
            files,
            users,
            services,
            run,
            readonly,
        })
    }

    /// Packages that are only unpacked have no accounts yet, and nothing that could run.
    fn refuse_what_needs_configured(&mut self, written: &written::Rootfs) {
        let mut units = written.enable.iter().chain(&written.disable);
        let firsts = [
            (
                written.users.first().map(|user| user.name.at),
                "rootfs.users",
            ),
            (units.next().map(|unit| unit.at), "rootfs.services"),
            (written.run.first().map(at_of_step), "rootfs.run"),
        ];
        for (at, path) in firsts {
            if let Some(at) = at {
                let reason = "needs packages that are configured, and unpack_only leaves that to another machine";
                self.d.reject(at, path, reason);
            }
        }
    }

    fn tarball(&mut self, written: written::Tarball) -> Option<Tarball> {
        let strip_components = written.strip_components.as_ref().map_or(0, |at| at.value);
        Some(Tarball {
            location: self.tarball_location(written, "rootfs.source.tarball")?,
            strip_components,
        })
    }

    fn disk(&mut self, written: written::Disk) -> Option<Disk> {
        const PATH: &str = "rootfs.source.disk";
        if let (Some(_), Some(first)) = (&written.place.url, written.chain.first()) {
            let reason = "goes with a path: what is downloaded is one file";
            self.d.reject(first.at, &format!("{PATH}.chain"), reason);
        }
        let location = self.tarball_location(written.place, PATH)?;
        let name = match &location {
            TarballLocation::Path { file, .. } => &file.written,
            TarballLocation::Url { url, .. } => url,
        };
        let is_cobd = names::is_cobd(Path::new(name));
        let chain = written.chain.into_iter().enumerate();
        Some(Disk {
            is_cobd,
            chain: chain
                .map(|(index, file)| self.host_file(file, &format!("{PATH}.chain[{index}]")))
                .collect(),
            location,
            partition: match written.partition {
                Some(partition) => partition.value,
                None => Defaults::PARTITION.to_owned(),
            },
            keep_state: written.keep_state.unwrap_or(false),
        })
    }

    /// Where an archive is; without a digest here, what is fetched has its digest in the lock.
    pub(super) fn tarball_location(
        &mut self,
        written: written::Tarball,
        within: &str,
    ) -> Option<TarballLocation> {
        let sha256 = written
            .sha256
            .map(|text| self.checked(text, &format!("{within}.sha256"), names::sha256));
        match (written.path, written.url, sha256) {
            (Some(path), None, sha256) => {
                let file = self.host_file(path, &format!("{within}.path"));
                Some(TarballLocation::Path { file, sha256 })
            }
            (None, Some(url), sha256) => Some(TarballLocation::Url {
                url: self.checked(url, &format!("{within}.url"), names::url),
                sha256,
            }),
            (Some(_), Some(url), _) => {
                self.d.reject(url.at, within, "has both a path and a url");
                None
            }
            (None, None, _) => {
                self.d.reject(written.at, within, "needs a path or a url");
                None
            }
        }
    }

    fn files(&mut self, written: Vec<written::FileEntry>) -> Vec<FileEntry> {
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for (index, entry) in written.into_iter().enumerate() {
            let path = format!("rootfs.files[{index}]");
            let at = entry.path.at;
            let guest_path = self.checked(entry.path, &format!("{path}.path"), names::guest_path);
            self.once(&mut seen, guest_path.clone(), at, &path);
            let content = match (entry.content, entry.source) {
                (Some(text), None) => FileContent::Text(text.value),
                (None, Some(source)) => {
                    FileContent::File(self.host_file(source, &format!("{path}.source")))
                }
                (Some(_), Some(source)) => {
                    self.d
                        .reject(source.at, &path, "has both a content and a source");
                    continue;
                }
                (None, None) => {
                    self.d.reject(at, &path, "needs a content or a source");
                    continue;
                }
            };
            files.push(FileEntry {
                path: guest_path,
                content,
                mode: entry.mode.map_or(Defaults::FILE_MODE, |at| at.value),
                owner: self.owner(entry.owner, &format!("{path}.owner")),
                group: self.owner(entry.group, &format!("{path}.group")),
            });
        }
        files
    }

    fn owner(&mut self, written: Option<At<Owner>>, path: &str) -> Owner {
        let Some(owner) = written else {
            return Defaults::owner();
        };
        match owner.value {
            Owner::Name(name) if name == "root" => Owner::Id(0),
            Owner::Name(value) => {
                let at = owner.at;
                Owner::Name(self.checked(At { value, at }, path, names::user))
            }
            id @ Owner::Id(_) => id,
        }
    }
}

fn at_of_step(step: &written::RunStep) -> Position {
    match &step.action {
        written::RunAction::Command(text) | written::RunAction::Script(text) => text.at,
    }
}
