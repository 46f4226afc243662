-- What many runs of one replica read at the same time goes in one statement, and so do their starts. Arrays run in parallel, one
-- element a run; a row says which run it is of (1, 2, 3 ...).

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
returns table (run int, id text, kind text, sender text, target text, content text, approved boolean) language plpgsql as $$
declare
  v_tenant text;
begin
  for v_tenant in select distinct t from unnest(p_tenants) t loop
    perform set_config('app.tenant', v_tenant, true);
    return query
      select r.place::int, g.id, g.kind, g.sender, g.target, g.content, g.approved
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
