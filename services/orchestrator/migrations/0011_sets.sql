-- Happenings are noted by the statements that write the log, of all logs they carry at once: the trigger materialised what each
-- statement wrote and ran a function for each log. What was copied from another session happened there: it is told and counted
-- there, and `copied` says so.
drop trigger happening_note on event;
drop function note_happenings();
drop function append_log(text, text, text, bigint, bigint[], text[], bytea[], bytea[], int, text, boolean, int, timestamptz, bytea,
  boolean, boolean, int, text);
drop function start_run(text, text, text, text, text, text[], jsonb, int, text, text[], text, bytea, timestamptz, text, bytea, bytea,
  text, jsonb);
-- How many inputs a session waits for, so that a tenant's people have one inbox.
alter table session add column open_inputs int not null default 0;
create index session_asking_idx on session (tenant_id, started_at, id) where open_inputs > 0;

alter table happening add column copied boolean not null default false;

create function is_followed(p_kind text) returns boolean language sql immutable parallel safe as $$
  select p_kind in ('session_started', 'turn_finished', 'turn_interrupted', 'task_finished', 'task_interrupted',
    'monitor_verdict', 'tool_finished', 'handed_off', 'signal_received', 'session_finished')
$$;

create or replace function start_runs(
  p_tenants text[], p_ids text[], p_topics text[], p_modes text[], p_strategies text[], p_participants text[], p_metadata text[],
  p_statuses int[], p_subjects text[], p_roles text[], p_requests text[], p_data bytea[], p_started timestamptz[],
  p_kinds text[], p_payloads bytea[], p_macs bytea[], p_graphs text[], p_graph_json text[]
) returns table (run int, earlier bytea) language plpgsql as $$
declare
  v_tenant text;
  v_new int[];
begin
  for v_tenant in select distinct t from unnest(p_tenants) t order by t loop
    perform set_config('app.tenant', v_tenant, true);
    with made as (
      insert into session (tenant_id, id, topic_start, topic_final, mode, strategy, participants, metadata, status,
        starter_subject, starter_roles, request_id, data, started_at)
      select v_tenant, p_ids[i], p_topics[i], p_topics[i], p_modes[i], p_strategies[i],
        array(select jsonb_array_elements_text(p_participants[i]::jsonb)), p_metadata[i]::jsonb, p_statuses[i],
        p_subjects[i], array(select jsonb_array_elements_text(p_roles[i]::jsonb)), p_requests[i], p_data[i], p_started[i]
      from generate_subscripts(p_tenants, 1) i where p_tenants[i] = v_tenant
      on conflict do nothing
      returning id
    )
    select array_agg(i) into v_new from generate_subscripts(p_tenants, 1) i join made on made.id = p_ids[i]
      where p_tenants[i] = v_tenant;
    return query
      select i, s.data from generate_subscripts(p_tenants, 1) i
      left join session s on s.tenant_id = v_tenant and s.request_id = p_requests[i] and s.id <> p_ids[i]
      where p_tenants[i] = v_tenant and not i = any(coalesce(v_new, '{}'));
    continue when v_new is null;
    insert into event (tenant_id, session_id, sequence, kind, payload, mac)
      select v_tenant, p_ids[i], 1, p_kinds[i], p_payloads[i], p_macs[i] from unnest(v_new) i;
    insert into happening (tenant_id, session_id, sequence, kind)
      select v_tenant, p_ids[i], 1, p_kinds[i] from unnest(v_new) i where is_followed(p_kinds[i]);
    insert into task_graph (tenant_id, id, session_id, graph_json, status)
      select v_tenant, p_graphs[i], p_ids[i], p_graph_json[i]::jsonb, 'pending'
      from unnest(v_new) i where p_graphs[i] is not null;
    insert into session_lease (tenant_id, session_id, kind)
      select v_tenant, p_ids[i], case when p_graphs[i] is null then 'session' else 'graph' end from unnest(v_new) i;
    perform pg_notify('orchestrator_wake', p_ids[i]) from unnest(v_new) i;
  end loop;
end $$;

-- Appends to any number of logs, as before, with statements about all logs of a tenant instead of some for each: a batch of a hundred
-- costs six statements. Each write is checked against its lease by itself: one that is not held is left out and does not come back.
-- The leases are locked in their order, as whoever renews them locks them, so that no two wait for each other, and stay locked to
-- the end, so that no takeover comes between.
drop function append_logs(text[], text[], text[], bigint[], int[], int[], text[], boolean[], int[], timestamptz[], bytea[], boolean[],
  boolean[], int[], text[], int[], bigint[], text[], bytea[], bytea[], text[], int[], text[], text[], text[], float8[], jsonb[], bytea[],
  timestamptz[]);
create function append_logs(
  p_tenants text[], p_sessions text[], p_owners text[], p_fences bigint[],
  p_statuses int[], p_stop_reasons int[], p_topics text[], p_converged boolean[], p_rounds int[], p_ended timestamptz[], p_data bytea[],
  p_releases boolean[], p_over boolean[], p_taken int[], p_graph_statuses text[],
  p_lasts int[], p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[],
  p_turns text[], p_turn_rounds int[], p_turn_agents text[], p_turn_prompts text[], p_turn_contents text[],
  p_turn_confidences float8[], p_turn_raws jsonb[], p_turn_data bytea[], p_turn_times timestamptz[],
  p_inputs int[] default null
) returns table (place int, signals int) language plpgsql as $$
declare
  v_tenant text;
  v_held bigint[];
begin
  for v_tenant in select distinct t from unnest(p_tenants) t order by t loop
    perform set_config('app.tenant', v_tenant, true);
    select coalesce(array_agg(held.at), '{}') into v_held from (
      select r.at from unnest(p_tenants, p_sessions, p_owners, p_fences) with ordinality as r(tenant, session, owner, fence, at)
      join session_lease l on l.tenant_id = v_tenant and l.session_id = r.session
      where r.tenant = v_tenant and l.owner = r.owner and l.fence = r.fence and l.expires_at > clock_timestamp()
      order by l.session_id
      for update of l
    ) held;
    with made as (
      insert into event (tenant_id, session_id, sequence, kind, payload, mac)
      select v_tenant, r.session, e.sequence, e.kind, e.payload, e.mac
      from (
        select at, session, coalesce(lag(last) over (order by at), 0) + 1 as first, last
        from unnest(p_sessions, p_lasts) with ordinality as w(session, last, at)
      ) r
      cross join lateral generate_series(r.first, r.last) as i
      join unnest(p_sequences, p_kinds, p_payloads, p_macs) with ordinality as e(sequence, kind, payload, mac, at) on e.at = i
      where r.at = any(v_held)
      returning session_id, sequence, kind
    )
    insert into happening (tenant_id, session_id, sequence, kind)
      select v_tenant, session_id, sequence, kind from made where is_followed(kind) order by session_id, sequence;
    update session s set status = r.status, stop_reason = r.stop_reason, topic_final = r.topic, converged = r.converged,
      rounds_executed = r.rounds, ended_at = r.ended, data = r.data, open_inputs = coalesce(r.inputs, 0)
      from unnest(p_sessions, p_statuses, p_stop_reasons, p_topics, p_converged, p_rounds, p_ended, p_data, p_inputs)
        with ordinality as r(session, status, stop_reason, topic, converged, rounds, ended, data, inputs, at)
      where s.tenant_id = v_tenant and s.id = r.session and r.at = any(v_held);
    insert into turn (tenant_id, id, session_id, round, agent_name, prompt, content, confidence, raw, data, created_at)
      select v_tenant, r.id, r.session, r.round, r.agent, r.prompt, r.content, r.confidence, r.raw, r.data, r.time
      from unnest(p_turns, p_sessions, p_turn_rounds, p_turn_agents, p_turn_prompts, p_turn_contents, p_turn_confidences,
        p_turn_raws, p_turn_data, p_turn_times) with ordinality
        as r(id, session, round, agent, prompt, content, confidence, raw, data, time, at)
      where r.id is not null and r.at = any(v_held);
    if true = any(p_releases) then
      update session_lease l set owner = null, expires_at = '-infinity', takeovers = 0,
        ready = not r.over
          and (select count(*) from signal g where g.tenant_id = v_tenant and g.session_id = r.session) > r.taken
        from unnest(p_sessions, p_releases, p_over, p_taken) with ordinality as r(session, released, over, taken, at)
        where l.tenant_id = v_tenant and l.session_id = r.session and r.released and r.at = any(v_held);
      update task_graph g set status = r.status
        from unnest(p_sessions, p_releases, p_over, p_graph_statuses) with ordinality as r(session, released, over, status, at)
        where g.tenant_id = v_tenant and g.session_id = r.session and r.released and r.over and r.at = any(v_held);
    end if;
    return query
      select r.at::int, (select count(*)::int from signal g where g.tenant_id = v_tenant and g.session_id = r.session)
      from unnest(p_sessions) with ordinality as r(session, at) where r.at = any(v_held);
  end loop;
end $$;
