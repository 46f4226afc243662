-- What many runs of one replica have to write or read goes in one statement, and what is written in one transaction with one
-- flush. Arrays run in parallel: one element a run, or, where `p_run` says whose it is, one an event. Each run's fence is checked
-- with its lease locked until the end; locks are taken in the order of ids, so that two of these never wait for each other.

-- Appends events to many logs and writes their summaries, as append_log does for one. Returns the places (1, 2, 3 ...) of the runs
-- whose lease is held; nothing was written for the others.
create function append_logs(
  p_owner text, p_tenants text[], p_sessions text[], p_fences bigint[],
  p_statuses int[], p_topics text[], p_converged boolean[], p_rounds int[], p_ended timestamptz[], p_data bytea[],
  p_release boolean[], p_over boolean[], p_signals_taken int[], p_graph_statuses text[],
  p_run int[], p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[]
) returns int[] language plpgsql as $$
declare
  v_tenant text;
  v_held int[];
  v_all int[] := '{}';
begin
  for v_tenant in select distinct t from unnest(p_tenants) t order by t loop
    perform set_config('app.tenant', v_tenant, true);
    select array_agg(held.place) into v_held from (
      select r.place from unnest(p_tenants, p_sessions, p_fences) with ordinality as r(tenant, session, fence, place)
      join session_lease l on l.tenant_id = r.tenant and l.session_id = r.session
      where r.tenant = v_tenant and l.owner = p_owner and l.fence = r.fence and l.expires_at > clock_timestamp()
      order by l.session_id
      for update of l
    ) held;
    continue when v_held is null;
    v_all := v_all || v_held;
    insert into event (tenant_id, session_id, sequence, kind, payload, mac)
      select v_tenant, p_sessions[e.run], e.sequence, e.kind, e.payload, e.mac
      from unnest(p_run, p_sequences, p_kinds, p_payloads, p_macs) as e(run, sequence, kind, payload, mac)
      where e.run = any(v_held);
    update session s set status = p_statuses[place], topic_final = p_topics[place], converged = p_converged[place],
      rounds_executed = p_rounds[place], ended_at = p_ended[place], data = p_data[place]
      from unnest(v_held) place
      where s.tenant_id = v_tenant and s.id = p_sessions[place];
    if exists (select from unnest(v_held) place where p_release[place]) then
      update session_lease l set owner = null, expires_at = '-infinity', takeovers = 0,
        ready = not p_over[place]
          and (select count(*) from signal g where g.session_id = l.session_id) > p_signals_taken[place]
        from unnest(v_held) place
        where p_release[place] and l.tenant_id = v_tenant and l.session_id = p_sessions[place];
      update task_graph g set status = p_graph_statuses[place]
        from unnest(v_held) place
        where p_release[place] and p_over[place] and g.tenant_id = v_tenant and g.session_id = p_sessions[place];
    end if;
  end loop;
  return v_all;
end $$;

-- The first events of many logs after what is known, with the keyed hash of the last one of each.
create function read_logs(p_tenants text[], p_sessions text[], p_after bigint[], p_limits int[])
returns table (run int, sequence bigint, kind text, payload bytea, mac bytea) language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, e.sequence, e.kind, e.payload, e.mac
      from unnest(p_tenants, p_sessions, p_after, p_limits) with ordinality
        as r(tenant, session, after, most, place),
      lateral (
        select * from event
        where event.tenant_id = v_tenant and event.session_id = r.session and event.sequence > r.after
        order by event.sequence
        limit r.most
      ) e
      where r.tenant = v_tenant
      order by r.place, e.sequence;
  end loop;
end $$;

-- Who started each of these runs.
create function run_starters(p_tenants text[], p_sessions text[])
returns table (run int, starter_subject text, starter_roles text[]) language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, s.starter_subject, s.starter_roles
      from unnest(p_tenants, p_sessions) with ordinality as r(tenant, session, place)
      join session s on s.tenant_id = r.tenant and s.id = r.session
      where r.tenant = v_tenant;
  end loop;
end $$;

-- The signals of each of these runs, oldest first.
create function runs_signals(p_tenants text[], p_sessions text[])
returns table (run int, id text, kind text, sender text, target text) language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, g.id, g.kind, g.sender, g.target
      from unnest(p_tenants, p_sessions) with ordinality as r(tenant, session, place)
      join signal g on g.tenant_id = r.tenant and g.session_id = r.session
      where r.tenant = v_tenant
      order by r.place, g.created_at, g.id;
  end loop;
end $$;

-- Starts many runs, as start_run does one. Returns a row for each that was not started now, with the session an earlier request of
-- its request_id started. Two of one request never come together. Lists of lists come as JSON.
create function start_runs(
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
    insert into task_graph (tenant_id, id, session_id, graph_json, status)
      select v_tenant, p_graphs[i], p_ids[i], p_graph_json[i]::jsonb, 'pending'
      from unnest(v_new) i where p_graphs[i] is not null;
    insert into session_lease (tenant_id, session_id, kind)
      select v_tenant, p_ids[i], case when p_graphs[i] is null then 'session' else 'graph' end from unnest(v_new) i;
    perform pg_notify('orchestrator_wake', p_ids[i]) from unnest(v_new) i;
  end loop;
end $$;

-- All versions of each of these agents.
create function versions_of_agents(p_tenants text[], p_names text[])
returns table (place int, data bytea) language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, a.data
      from unnest(p_tenants, p_names) with ordinality as r(tenant, name, place)
      join agent a on a.tenant_id = r.tenant and a.name = r.name
      where r.tenant = v_tenant;
  end loop;
end $$;
