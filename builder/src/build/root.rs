//! From the source to the root file system, step by step: what is in the store is not done again.

use coop_image::tree::{Timestamp, Tree, TreeError};
use coop_runtime::event::{Event, Observer};

use super::source::Source;
use super::{BuildError, BuildRequest, task};
use crate::guest::{self, GuestContext, Step};
use crate::inputs::{FileDigests, seed};
use crate::kernel::{KernelFiles, modules};
use crate::plan::{Action, Plan, PlanStep, Trees};
use crate::recipe::{Recipe, Services};
use crate::rootfs;

pub(super) fn needs_guest(recipe: &Recipe, source: &Source<'_>) -> bool {
    let Services { enable, disable } = &recipe.rootfs.services;
    let has_services = !enable.is_empty() || !disable.is_empty();
    source.configures() || has_services || !recipe.rootfs.run.is_empty()
}

/// What the steps of a plan are done with.
pub(super) struct Workshop<'a, 'r> {
    pub(super) request: &'a BuildRequest<'r>,
    pub(super) plan: &'a Plan,
    /// Services and `run:` steps.
    pub(super) programs: &'a [Step],
    pub(super) trees: &'a Trees<'a>,
    /// The kernel whose modules are installed.
    pub(super) modules_of: Option<&'a KernelFiles>,
    /// For every guest, but for seed and time.
    pub(super) context: GuestContext<'a>,
}

/// A root file system on its way.
struct Root {
    tree: Tree,
    /// The latest time that anything in the image may have.
    epoch: Timestamp,
    /// What the guest still has to run so that the packages are configured.
    configure: Option<String>,
}

impl Workshop<'_, '_> {
    /// Brings the root file system, from the last step on whose result the store has. Gives the
    /// latest time in it too.
    pub(super) fn root(&self, source: Source<'_>) -> Result<(Tree, Timestamp), BuildError> {
        let (mut root, next) = match self.last_kept(&source)? {
            Some((root, next)) => (root, next),
            None => {
                let source = source.unpack(self.request)?;
                let root = Root {
                    tree: source.tree,
                    epoch: source.epoch,
                    configure: source.configure,
                };
                (root, 1)
            }
        };
        for step in self.plan.steps.iter().skip(next) {
            root = self.work(root, step)?;
        }
        let recipe = self.request.recipe;
        if !recipe.rootfs.source.keeps_state() {
            rootfs::normalise(&mut root.tree, root.epoch)?;
        }
        if let Some(readonly) = &recipe.rootfs.readonly {
            rootfs::make_readonly(&mut root.tree, readonly, &recipe.devices, root.epoch)?;
        }
        Ok((root.tree, root.epoch))
    }

    /// The last result that the store has, and the place of the step behind it.
    fn last_kept(&self, source: &Source<'_>) -> Result<Option<(Root, usize)>, BuildError> {
        let Some(epoch) = source.epoch(self.request)? else {
            return Ok(None);
        };
        for (index, step) in self.plan.steps.iter().enumerate().rev() {
            if !step.action.is_kept() || !self.trees.has(step.key) {
                continue;
            }
            let Some(tree) = self.trees.load(step.key)? else {
                let message = format!(
                    "the result of step '{}' in the cache was damaged; it is made again",
                    step.name
                );
                let message = &message;
                self.request.observer.event(&Event::Warning { message });
                continue;
            };
            let message = format!("step '{}' and all before it: from the cache", step.name);
            let message = &message;
            self.request.observer.event(&Event::Note { message });
            let root = Root {
                tree,
                epoch,
                configure: None,
            };
            return Ok(Some((root, index + 1)));
        }
        Ok(None)
    }

    fn work(&self, mut root: Root, step: &PlanStep) -> Result<Root, BuildError> {
        let recipe = self.request.recipe;
        match step.action {
            Action::Source | Action::Image => {}
            Action::Configure => {
                if let Some(script) = root.configure.take() {
                    let program = Step::new("configuring the packages", script.into_bytes());
                    root.tree = self.in_guest(root.tree, root.epoch, &program, step)?;
                }
            }
            Action::Customise => {
                rootfs::customise(&mut root.tree, &recipe.rootfs, root.epoch)?;
            }
            // Before the programs, so that these may load modules, and take away what they do not
            // want.
            Action::Modules => {
                if let Some(kernel) = self.modules_of {
                    let observer = &*self.request.observer;
                    install_modules(&mut root.tree, kernel, root.epoch, observer)?;
                }
            }
            Action::Run(index) => {
                let Some(program) = self.programs.get(index) else {
                    return Ok(root);
                };
                if program.name == SERVICES && root.tree.resolve(SYSTEMCTL).is_err() {
                    return Err(BuildError::NoSystemd);
                }
                root.tree = self.in_guest(root.tree, root.epoch, program, step)?;
            }
        }
        Ok(root)
    }

    /// Runs a program in the guest and keeps the tree that it leaves.
    fn in_guest(
        &self,
        tree: Tree,
        epoch: Timestamp,
        program: &Step,
        step: &PlanStep,
    ) -> Result<Tree, BuildError> {
        let context = GuestContext {
            // Nothing of the recipe: another one with the same key has the same guest.
            seed: seed(&step.key, "scratch"),
            epoch,
            ..self.context.clone()
        };
        let name = match step.action {
            Action::Configure => "configure packages",
            _ => "run steps",
        };
        let program = std::slice::from_ref(program);
        let tree = task(&*self.request.observer, name, || {
            Ok(guest::run(tree, program, &context)?)
        })?;
        Ok(self.trees.keep(step.key, &tree)?)
    }
}

fn install_modules(
    tree: &mut Tree,
    kernel: &KernelFiles,
    epoch: Timestamp,
    observer: &dyn Observer,
) -> Result<(), TreeError> {
    let installed = modules::install(tree, kernel, epoch)?;
    if !installed.others.is_empty() {
        let message = format!(
            "the root file system also has modules of kernels that this appliance does not boot: {}",
            installed.others.join(", ")
        );
        observer.event(&Event::Warning { message: &message });
    }
    Ok(())
}

/// The name of the step that switches services on and off.
const SERVICES: &str = "services";
const SYSTEMCTL: &[u8] = b"/usr/bin/systemctl";

/// The recipe's services and `run:` steps as programs for the guest.
pub(super) fn programs(
    recipe: &Recipe,
    locked: bool,
    files: &FileDigests,
) -> Result<Vec<Step>, BuildError> {
    let mut steps = Vec::new();
    let Services { enable, disable } = &recipe.rootfs.services;
    if !enable.is_empty() || !disable.is_empty() {
        let script = services_script(enable, disable).into_bytes();
        steps.push(Step::new(SERVICES, script));
    }
    for step in &recipe.rootfs.run {
        steps.push(Step::of_recipe(step, locked, files)?);
    }
    Ok(steps)
}

/// systemctl works on unit files alone where SYSTEMD_OFFLINE says that no systemd runs.
fn services_script(enable: &[String], disable: &[String]) -> String {
    let mut script = "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n".to_owned();
    for (verb, units) in [("enable", enable), ("disable", disable)] {
        for unit in units {
            script.push_str(&format!("systemctl {verb} -- {}\n", quote(unit)));
        }
    }
    script
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_no_shell() {
        let script = services_script(&["a b".to_owned()], &["x'; rm -rf /".to_owned()]);
        assert_eq!(
            script,
            "#!/bin/sh\nset -e\nexport SYSTEMD_OFFLINE=1\n\
             systemctl enable -- 'a b'\nsystemctl disable -- 'x'\\''; rm -rf /'\n"
        );
    }
}
