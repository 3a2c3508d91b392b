//! What may happen to members, and what must come of it.

use std::time::Duration;

use rand::RngExt as _;
use ringkit_gossip::api::Command;
use ringkit_gossip::register::EntryId;
use ringkit_gossip::sim::Sim;

use crate::cell::Trouble;
use crate::measure::percentile;
use crate::run::{Fault, KEY, Run, STEP, ensure, place, secs, standing};

/// How far clocks jump.
const HOUR_MS: i64 = 3_600_000;
/// How long a part of the members is cut off: longer than it takes to be taken for dead.
const CUT_OFF: u64 = 25;

/// Makes the trouble that the seed asks for. At the end all members run, and nothing stands in their way but what is lost.
pub(crate) fn make(run: &mut Run) -> Result<(), Fault> {
    let nodes = run.sim.nodes();
    match run.cell.trouble {
        Trouble::Calm => calm(run),
        Trouble::Halves => partition(run, (0..nodes / 2).collect()),
        Trouble::One => {
            let node = run.some();
            partition(run, vec![node])
        }
        Trouble::Zone => partition(run, (1..nodes).step_by(3).collect()),
        Trouble::Crash => crash(run),
        Trouble::Restart => restart(run),
        Trouble::Pause => pause(run),
        Trouble::OneWay => one_way(run),
        Trouble::ClockAhead => clock_ahead(run),
        Trouble::ClockBehind => clock_behind(run),
        Trouble::Leave => leave(run),
        Trouble::Chaos => chaos(run),
    }
}

fn calm(run: &mut Run) -> Result<(), Fault> {
    let before = run.sim.false_deaths();
    run.news("more", 20, secs(3))?;
    let false_deaths = run.sim.false_deaths() - before;
    run.figures.false_deaths.entry(run.cell.loss).or_default().push(false_deaths);
    ensure(false_deaths <= run.cell.false_deaths(), || format!("{false_deaths} members were taken for dead"))
}

/// These are cut off for a while, and both sides go on. Then all find together by themselves, and what was removed stays removed.
fn partition(run: &mut Run, cut_off: Vec<usize>) -> Result<(), Fault> {
    let others: Vec<usize> = (0..run.sim.nodes()).filter(|node| !cut_off.contains(node)).collect();
    let sides = [cut_off, others];
    run.sim.partition(&sides);
    run.sim.run_for(secs(2));
    let [here, there] = [0_usize, 1].map(|side| sides[side][run.random.random_range(0..sides[side].len())]);
    let removed = [run.remove(here)?, run.remove(there)?];
    run.keep(here, "here", b"of these");
    run.keep(there, "there", b"of those");
    run.keep(here, "both", b"of these");
    run.sim.run_for(secs(5));
    // The later one of two counts, wherever it was written.
    run.keep(there, "both", b"of those");
    run.sim.run_for(secs(CUT_OFF - 7));
    run.sim.check_bounds()?;
    for (node, entry) in [(there, &removed[0]), (here, &removed[1])] {
        let kept = !run.sim.has(node, KEY, entry, None);
        ensure(kept, || format!("word of `{}` crossed the partition", entry.id))?;
    }
    run.sim.heal();
    reunite(run)
}

/// All know all again, in time.
fn reunite(run: &mut Run) -> Result<(), Fault> {
    let limit = run.cell.reunion(run.sim.nodes());
    let Some(took) = run.sim.run_until(Sim::members_agree, limit) else {
        return Err(format!("not all know all {limit:?} after the partition: {}", standing(&run.sim)));
    };
    run.figures.reunions.entry(run.cell.loss).or_default().push(took);
    Ok(())
}

/// One crashes, and all know of it in time. Then some more, and all come back.
fn crash(run: &mut Run) -> Result<(), Fault> {
    let (victims, limit) = (run.several(5), run.cell.death(run.sim.nodes()));
    let (first, others) = (victims[0], &victims[1..]);
    run.sim.crash(first);
    let Some(took) = run.sim.run_until(Sim::members_agree, limit) else {
        return Err(format!("not all know of a death after {limit:?}: {}", standing(&run.sim)));
    };
    run.figures.deaths.entry(run.cell.loss).or_default().push(took);
    for victim in others {
        run.sim.crash(*victim);
    }
    run.sim.run_for(secs(1));
    let by = run.some();
    run.remove(by)?;
    run.sim.run_for(secs(10));
    run.start_all()?;
    run.sim.run_for(secs(1));
    run.settle("all are back")?;
    // Its new life overrules the old one.
    run.keep(first, "back", b"again");
    run.reaches_all("back", Some(b"again"))
}

/// Some come back in the moment in which they crash, so that the others hear of both at once.
fn restart(run: &mut Run) -> Result<(), Fault> {
    let victims = run.several(4);
    run.keep(victims[0], "of the former life", b"old");
    run.reaches_all("of the former life", Some(b"old"))?;
    for victim in &victims {
        run.restart(*victim)?;
        let by = run.some_of(&victims);
        run.keep(by, format!("beside {victim}"), b"while others restart");
        run.sim.run_for(secs(2));
    }
    // And once more, before it is anywhere.
    run.restart(victims[0])?;
    run.sim.run_for(Duration::from_millis(200));
    run.restart(victims[0])?;
    run.sim.run_for(secs(2));
    run.settle("all are back")?;
    run.keep(victims[0], "of the former life", b"new");
    run.reaches_all("of the former life", Some(b"new"))
}

/// Some stand still so long that they count for dead, and then go on with what they had.
fn pause(run: &mut Run) -> Result<(), Fault> {
    let victims = run.several(3);
    for victim in &victims {
        run.sim.pause(*victim);
    }
    run.sim.run_for(secs(1));
    let (one, other) = (run.some(), run.some());
    let removed = run.remove(one)?;
    run.keep(other, "meanwhile", b"they stood still");
    run.sim.run_for(secs(19));
    for victim in victims {
        let stood = !run.sim.has(victim, KEY, &removed, None);
        ensure(stood, || format!("{victim} heard something while it stood still"))?;
        run.sim.resume(victim);
    }
    run.sim.run_for(secs(1));
    Ok(())
}

/// Who is not heard by some is vouched for by others.
fn one_way(run: &mut Run) -> Result<(), Fault> {
    let drawn = run.several(6);
    let (mute, deaf, before) = (drawn[0], &drawn[1..], run.sim.false_deaths());
    for node in deaf {
        run.sim.cut(mute, *node);
    }
    for number in 0..3 {
        run.keep(mute, format!("mute-{number}"), b"by way of others");
        run.sim.run_for(secs(5));
    }
    run.remove(mute)?;
    run.sim.run_for(secs(15));
    for number in 0..3 {
        run.reaches_all(&format!("mute-{number}"), Some(b"by way of others"))?;
    }
    let false_deaths = run.sim.false_deaths() - before;
    ensure(false_deaths <= run.cell.false_deaths(), || {
        format!("{false_deaths} members were taken for dead")
    })?;
    run.sim.heal();
    Ok(())
}

/// One clock is an hour ahead: what its member writes is refused for now, and nothing else.
fn clock_ahead(run: &mut Run) -> Result<(), Fault> {
    let ahead = run.some();
    run.keep(ahead, "own", b"before");
    run.reaches_all("own", Some(b"before"))?;
    run.sim.jump_clock(ahead, HOUR_MS);
    run.sim.write(ahead, KEY, &place("early"), Some(b"from the future"));
    let good = run.some_of(&[ahead]);
    run.keep(good, "good", b"good");
    run.reaches_all("good", Some(b"good"))?;
    run.sim.run_for(secs(25));
    let having = run.sim.count_having(KEY, &place("early"), Some(b"from the future"));
    ensure(having == 1, || format!("{having} members believe in the future"))?;
    let nodes = 0..run.sim.nodes();
    let refused = |author| nodes.clone().map(|by| run.sim.quarantined(by, author)).sum::<u64>();
    ensure(refused(ahead) > 0, || "nobody has seen what is ahead".to_owned())?;
    let blamed = nodes.clone().find(|author| *author != ahead && refused(*author) > 0);
    ensure(blamed.is_none(), || format!("what {blamed:?} wrote was refused, whose clock is right"))?;
    // With its clock right, in a new life, what it writes counts, over all that it wrote.
    run.sim.jump_clock(ahead, -HOUR_MS);
    run.restart(ahead)?;
    run.sim.run_for(secs(2));
    run.settle("its clock is right")?;
    run.keep(ahead, "own", b"after");
    run.reaches_all("own", Some(b"after"))
}

/// One clock is an hour behind: its member refuses for now what the others write, whom that does not harm.
fn clock_behind(run: &mut Run) -> Result<(), Fault> {
    let behind = run.some();
    let other = run.some_of(&[behind]);
    run.keep(behind, "own", b"before");
    run.reaches_all("own", Some(b"before"))?;
    run.sim.jump_clock(behind, -HOUR_MS);
    run.keep(other, "good", b"good");
    run.keep(behind, "own", b"meanwhile");
    run.reaches_all("own", Some(b"meanwhile"))?;
    run.sim.run_for(secs(25));
    let (having, nodes) = (run.sim.count_having(KEY, &place("good"), Some(b"good")), run.sim.nodes());
    ensure(having == nodes - 1, || format!("{having} of {nodes} have what only one may refuse"))?;
    run.sim.jump_clock(behind, HOUR_MS);
    let (limit, root) = (run.cell.rest(), |sim: &Sim, node| sim.node(node).store().root());
    let took = run.sim.run_until(|sim| root(sim, behind) == root(sim, other), limit);
    ensure(took.is_some(), || format!("it has not caught up after {limit:?}"))
}

/// One leaves, and as soon as somebody knows all do; what it wrote stays.
fn leave(run: &mut Run) -> Result<(), Fault> {
    let leaver = run.some();
    run.keep(leaver, "left", b"last words");
    run.sim.command(leaver, Command::Leave);
    let mut unaware: Vec<usize> = run.sim.live().filter(|node| *node != leaver).collect();
    let (all, mut first, mut took) = (run.sim.nodes(), None, Vec::new());
    let end = run.sim.now() + secs(60);
    while !unaware.is_empty() {
        run.sim.run_for(STEP);
        let (now, before) = (run.sim.now(), unaware.len());
        unaware.retain(|node| run.sim.node(*node).status().members >= all);
        if unaware.len() < before {
            let first = *first.get_or_insert(now);
            took.extend(std::iter::repeat_n(now - first, before - unaware.len()));
        }
        ensure(now < end, || format!("{unaware:?} do not know that it leaves"))?;
    }
    let worst = percentile(&took, 100);
    ensure(worst <= run.cell.death(all), || format!("the last one knew {worst:?} after the first"))?;
    run.figures.leaves.entry(run.cell.loss).or_default().extend(took);
    let gone = run.sim.run_until(|sim| !sim.is_live(leaver), secs(30));
    ensure(gone.is_some(), || "it does not end".to_owned())?;
    run.settle("it left")?;
    run.start_all()?;
    run.sim.run_for(secs(1));
    Ok(())
}

/// Something of everything.
fn chaos(run: &mut Run) -> Result<(), Fault> {
    let nodes = run.sim.nodes();
    for round in 0..12 {
        let node = run.random.random_range(0..nodes);
        match run.random.random_range(0..9) {
            0 => run.sim.crash(node),
            1 => run.restart(node)?,
            2 => run.start_all()?,
            3 => run.sim.pause(node),
            4 => run.sim.resume(node),
            5 => {
                let (one, other): (Vec<usize>, Vec<usize>) =
                    (0..nodes).partition(|_| run.random.random_bool(0.5));
                run.sim.partition(&[one, other]);
            }
            6 => {
                let other = run.random.random_range(0..nodes);
                run.sim.cut(node, other);
            }
            7 => run.sim.heal(),
            _ => {
                let loss = run.random.random_range(0.0..0.3);
                run.sim.set_loss(loss);
            }
        }
        for _ in 0..3 {
            let (author, number) = (run.random.random_range(0..nodes), run.random.random_range(0..nodes));
            let (facet, live) = (run.random.random_range(0..3), run.random.random_bool(0.7));
            let (entry, body) =
                (EntryId::new(format!("any-{number}"), facet), format!("{round} by {author}"));
            run.sim.write(author, KEY, &entry, live.then_some(body.as_bytes()));
        }
        let pause = run.random.random_range(0..4_000);
        run.sim.run_for(Duration::from_millis(pause));
        run.sim.check_bounds()?;
    }
    run.sim.heal();
    run.sim.set_loss(run.cell.loss());
    for node in 0..nodes {
        run.sim.resume(node);
    }
    run.start_all()?;
    run.sim.run_for(secs(1));
    Ok(())
}
