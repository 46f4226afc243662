-- name: add_agent
insert into agent (tenant_id, id, name, version, style, config, monitors, capabilities, state, data, request_id, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning id;

-- name: import_agent
insert into agent (tenant_id, id, name, version, style, config, monitors, capabilities, state, data, request_id, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: agent_made_by
select data from agent where request_id = $1;

-- name: agents_versions
select place, data from versions_of_agents($1, $2);

-- name: set_agent_state
update agent set state = $2, archived = $3, data = $4 where id = $1;

-- name: notify_agent
select pg_notify('orchestrator_agents', $1);

-- name: every_agent
select data from agent
where ($1::text = '' or name = $1) and ($2::text = '' or $2 = any(capabilities))
  and (($3::int = 0 and state in (1, 2)) or state = $3)
  and (not $7::bool or not exists (
    select from agent later where later.tenant_id = agent.tenant_id and later.name = agent.name and later.state = agent.state
      and string_to_array(later.version, '.')::int[] > string_to_array(agent.version, '.')::int[]))
order by
  case when $4::text = 'create_time' then created_at end,
  case when $4::text = 'create_time desc' then created_at end desc,
  name, string_to_array(version, '.')::int[]
offset $5 limit $6;

-- name: find_graph
select g.graph_json, s.data from task_graph g join session s on s.tenant_id = g.tenant_id and s.id = g.session_id
where g.id = $1;

-- name: graph_of_session
select graph_json from task_graph where session_id = $1;

-- name: every_graph
select g.graph_json, s.data from task_graph g join session s on s.tenant_id = g.tenant_id and s.id = g.session_id
where ($1::int[] = '{}' or s.status = any($1))
  and ($2::timestamptz is null or (s.started_at, s.id) < ($2, $3))
order by s.started_at desc, s.id desc
limit $4;

-- name: append_logs
select place, signals from append_logs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
  $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30);

-- name: add_events
with made as (
  insert into event (tenant_id, session_id, sequence, kind, payload, mac)
  select $1, $2, e.sequence, e.kind, e.payload, e.mac
  from unnest($3::bigint[], $4::text[], $5::bytea[], $6::bytea[]) as e(sequence, kind, payload, mac)
  returning session_id, sequence, kind
)
insert into happening (tenant_id, session_id, sequence, kind, copied)
select $1, session_id, sequence, kind, true from made where is_followed(kind) order by sequence;

-- name: add_turn
insert into turn (tenant_id, session_id, id, round, agent_name, prompt, content, confidence, raw, data, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: end_adopted
with over as (update session_lease set ready = false where session_id = $1),
  elsewhere as (update happening set copied = true where session_id = $1)
update session set topic_final = $2, converged = $3, rounds_executed = $4, ended_at = $5, stop_reason = $6 where id = $1;

-- name: archivable
select id from session where ended_at < $1 and archived_at is null order by ended_at, id limit $2;

-- name: archived
select archived_at is not null from session where id = $1;

-- name: let_go
select let_go($1);

-- name: tenants
with recursive known as (
  (select tenant_id from session_lease order by tenant_id limit 1)
  union all
  select (select l.tenant_id from session_lease l where l.tenant_id > k.tenant_id order by l.tenant_id limit 1)
  from known k where k.tenant_id is not null
)
select tenant_id from known where tenant_id is not null;

-- name: read_chain
select sequence, kind, payload, mac from event where session_id = $1 order by sequence;

-- name: find_session
select data from session where id = $1;

-- name: starters
select run, starter_subject, starter_roles from run_starters($1, $2);

-- name: newest_sessions
select data from session
where ($1::int = 0 or status = $1) and ($2::text = '' or mode = $2)
  and ($3::timestamptz is null or (started_at, id) < ($3, $4))
  and ($6::text = '' or exists (select from unnest(participants) p where split_part(p, '@', 1) = $6))
  and ($7::int = 0 or stop_reason = $7)
  and ($8::timestamptz is null or started_at >= $8) and ($9::timestamptz is null or started_at < $9)
  and metadata @> $10::jsonb and ($11::boolean is null or (archived_at is not null) = $11)
order by started_at desc, id desc
limit $5;

-- name: asking_sessions
select data from session
where open_inputs > 0 and ($1::timestamptz is null or (started_at, id) > ($1, $2))
order by started_at, id
limit $3;

-- name: oldest_sessions
select data from session
where ($1::int = 0 or status = $1) and ($2::text = '' or mode = $2)
  and ($3::timestamptz is null or (started_at, id) > ($3, $4))
  and ($6::text = '' or exists (select from unnest(participants) p where split_part(p, '@', 1) = $6))
  and ($7::int = 0 or stop_reason = $7)
  and ($8::timestamptz is null or started_at >= $8) and ($9::timestamptz is null or started_at < $9)
  and metadata @> $10::jsonb and ($11::boolean is null or (archived_at is not null) = $11)
order by started_at, id
limit $5;

-- name: turns
select data from turn
where session_id = $1 and ($2::text = '' or agent_name = $2) and ($3::int = 0 or round = $3)
  and ($4::timestamptz is null or (created_at, id) > ($4, $5))
order by created_at, id
limit $6;

-- name: read_logs
select run, sequence, kind, payload, mac from read_logs($1, $2, $3, $4);

-- name: add_signal
insert into signal (tenant_id, id, session_id, kind, sender, request_id, target, content, approved, override_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict do nothing
returning id;

-- name: make_ready
update session_lease set ready = true, ready_at = clock_timestamp() where session_id = $1;

-- name: notify
select pg_notify('orchestrator_wake', $1);

-- name: signalled
select exists (select from signal where session_id = $1 and request_id = $2);

-- name: signals
select run, id, kind, sender, target, content, approved, override_id from runs_signals($1, $2);

-- name: claim
with waiting as (
  select tenant_id, session_id, ready_at, row_number() over (partition by tenant_id order by ready_at) as place
  from (
    select tenant_id, session_id, ready_at from session_lease
    where ready and expires_at < clock_timestamp()
    order by ready_at
    limit 2000
  ) oldest
), chosen as (
  select l.tenant_id, l.session_id
  from session_lease l join waiting w using (tenant_id, session_id)
  where l.ready and l.expires_at < clock_timestamp()
  order by w.place, w.ready_at
  limit $3
  for update of l skip locked
)
update session_lease l
set owner = coalesce($1::text, owner), fence = fence + ($1::text is not null)::int,
  expires_at = clock_timestamp() + $2::interval, takeovers = takeovers + ($1::text is not null and owner is not null)::int
from chosen c
where l.tenant_id = c.tenant_id and l.session_id = c.session_id
returning l.tenant_id, l.session_id, l.owner, l.fence, l.takeovers, l.kind;

-- name: take
update session_lease
set owner = $3, fence = fence + 1, expires_at = clock_timestamp() + $4::interval,
  takeovers = takeovers + (owner is not null)::int
where tenant_id = $1 and session_id = $2 and ready
returning tenant_id, session_id, owner, fence, takeovers, kind;

-- name: renew
with held as (
  select tenant_id, session_id from session_lease
  where owner = $1 and session_id = any($3::text[]) and expires_at > clock_timestamp()
  order by tenant_id, session_id
  for update
)
update session_lease l set expires_at = clock_timestamp() + $2::interval
from held h
where l.tenant_id = h.tenant_id and l.session_id = h.session_id;

-- name: give_back
update session_lease set owner = null, expires_at = '-infinity' where tenant_id = $1 and session_id = $2 and fence = $3
returning pg_notify('orchestrator_wake', session_id);

-- name: save_checkpoint
insert into checkpoint (tenant_id, id, agent_name, run_id, version, data) values ($1, $2, $3, $4, $5, $6)
on conflict (tenant_id, id) do update set agent_name = excluded.agent_name, run_id = excluded.run_id,
  version = excluded.version, data = excluded.data;

-- name: load_checkpoint
select data from checkpoint where id = $1;

-- name: every_checkpoint
select data from checkpoint
where ($1::text = '' or $1 = any(string_to_array(agent_name, ', '))) and ($2::text = '' or run_id = $2) and ($3::text = '' or id < $3)
order by id collate "C" desc
limit $4;

-- name: delete_checkpoint
delete from checkpoint where id = $1 returning id;

-- name: start_runs
select run, earlier from start_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20);
