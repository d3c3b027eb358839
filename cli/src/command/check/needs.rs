//! What the recipe's packages need of its kernel, as far as that is known without a download.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use coop_builder::kernel::advice::{Advice, advice};
use coop_builder::kernel::{self, Configuration, KernelRequest, Target, config, default};
use coop_builder::recipe::{Debian, KernelOrigin, Recipe, Source};
use coop_builder::source;
use coop_runtime::event::{Observer, Silent};

use super::super::lock;
use super::super::means::Means;
use crate::arguments::{DefaultKernel, RecipeOptions};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::Output;

/// What was found, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Needs that are not met.
    pub(super) advice: Vec<Advice>,
    /// Sentences about what is not known.
    pub(super) unknown: Vec<String>,
}

/// The kernel's side of the comparison.
struct Known {
    config: String,
    target: Target,
    version: String,
}

/// Compares. Nothing is fetched and nothing of a kernel's is run.
pub(super) fn look(
    file: &Path,
    recipe: &Recipe,
    choice: Option<DefaultKernel>,
    environment: &Environment,
    output: &Output,
) -> Result<Looked, Failure> {
    let Source::Debian(debian) = &recipe.rootfs.source else {
        return Ok(Looked::default());
    };
    let mut looked = Looked::default();
    let has_cache = environment
        .cache
        .as_ref()
        .is_some_and(|cache| cache.is_dir());
    // Without a cache there is nothing to look at; this makes none.
    let means = match has_cache {
        true => {
            let options = RecipeOptions::looking(choice);
            let pins = lock::pins(file, &options)?;
            Some(Means::prepare(&options, pins, environment, output)?)
        }
        false => None,
    };
    let packages = packages(recipe, debian, means.as_ref(), &mut looked);
    let known = known(recipe, means.as_ref(), &mut looked);
    if let Some(known) = known {
        let names: BTreeSet<&str> = packages.iter().map(String::as_str).collect();
        looked.advice = advice(&names, &known.config, known.target, &known.version);
    }
    Ok(looked)
}

/// All packages of the root file system, or those that the recipe names.
fn packages(
    recipe: &Recipe,
    debian: &Debian,
    means: Option<&Means>,
    looked: &mut Looked,
) -> Vec<String> {
    let closure = means.and_then(|means| {
        let archive = means.archive(recipe);
        source::closure(debian, &means.fetcher, &archive, &Silent).ok()
    });
    closure.unwrap_or_else(|| {
        looked.unknown.push(format!(
            "the lists of suite '{}' are not in the cache, so of the packages only those that the \
             recipe names were compared with the kernel",
            debian.suite
        ));
        // A version may follow: `libc6 (>= 2.41)`.
        let names = debian.packages.iter();
        let names = names.filter_map(|text| text.split([' ', '(', ':', '=', '/']).next());
        names.map(str::to_owned).collect()
    })
}

/// The kernel's configuration as it is known, or what the recipe asks for.
fn known(recipe: &Recipe, means: Option<&Means>, looked: &mut Looked) -> Option<Known> {
    let before = means.and_then(|means| {
        let archive = means.archive(recipe);
        let silent = Arc::new(Silent) as Arc<dyn Observer>;
        let request = KernelRequest {
            observer: &silent,
            ..means.kernel_request(&recipe.kernel, &archive)
        };
        kernel::known(&request).ok().flatten()
    });
    if let Some(Configuration {
        config,
        target,
        version,
        ..
    }) = before
    {
        return Some(Known {
            config,
            target,
            version,
        });
    }
    let KernelOrigin::Source(source) = &recipe.kernel.origin else {
        looked.unknown.push(
            "the kernel is not in the cache, so it was not compared with what packages need; coop \
             build does that"
                .to_owned(),
        );
        return None;
    };
    looked.unknown.push(
        "the kernel was not configured before, so what packages need was compared with what \
         kernel.config asks for; coop kernel config configures it"
            .to_owned(),
    );
    let version = default::version_of(source);
    let wanted =
        version.map(|version| config::merge(&recipe.kernel.wanted, source.target, version));
    let all = || recipe.kernel.wanted.iter().map(|one| one.line() + "\n");
    Some(Known {
        config: wanted.map_or_else(|| all().collect(), |merged| merged.text()),
        target: source.target,
        version: version.map_or_else(|| "of the recipe".to_owned(), |version| version.to_string()),
    })
}
