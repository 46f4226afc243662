-- Whatever the planner believes of tables it has not counted yet, rows are found by the key of the sessions named and never by going
-- through a tenant's: one append read sixty rows of others. A batch without turns brings none, not even empty columns.
-- Loops within loops are off: a plan made for ten rows sorted all keys of a batch of two hundred again for each of them.
create or replace function append_logs(
  p_tenants text[], p_sessions text[], p_owners text[], p_fences bigint[],
  p_statuses int[], p_stop_reasons int[], p_topics text[], p_converged boolean[], p_rounds int[], p_ended timestamptz[], p_data bytea[],
  p_releases boolean[], p_over boolean[], p_taken int[], p_graph_statuses text[],
  p_lasts int[], p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[],
  p_turns text[], p_turn_rounds int[], p_turn_agents text[], p_turn_prompts text[], p_turn_contents text[],
  p_turn_confidences float8[], p_turn_raws jsonb[], p_turn_data bytea[], p_turn_times timestamptz[],
  p_inputs int[] default null
) returns table (place int, signals int) language plpgsql set enable_nestloop = off as $$
declare
  v_tenant text;
  v_held bigint[];
begin
  for v_tenant in select distinct t from unnest(p_tenants) t order by t loop
    perform set_config('app.tenant', v_tenant, true);
    select coalesce(array_agg(held.at), '{}') into v_held from (
      select r.at from unnest(p_tenants, p_sessions, p_owners, p_fences) with ordinality as r(tenant, session, owner, fence, at)
      join session_lease l on l.tenant_id = v_tenant and l.session_id = any(p_sessions) and l.session_id = r.session
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
      where s.tenant_id = v_tenant and s.id = any(p_sessions) and s.id = r.session and r.at = any(v_held);
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
        where l.tenant_id = v_tenant and l.session_id = any(p_sessions) and l.session_id = r.session and r.released and r.at = any(v_held);
      update task_graph g set status = r.status
        from unnest(p_sessions, p_releases, p_over, p_graph_statuses) with ordinality as r(session, released, over, status, at)
        where g.tenant_id = v_tenant and g.session_id = any(p_sessions) and g.session_id = r.session and r.released and r.over and r.at = any(v_held);
    end if;
    return query
      select r.at::int, (select count(*)::int from signal g where g.tenant_id = v_tenant and g.session_id = r.session)
      from unnest(p_sessions) with ordinality as r(session, at) where r.at = any(v_held);
  end loop;
end $$;

-- Rows that are written anew at every step find room beside the old ones, so that no index is touched.
alter table session set (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
alter table session_lease set (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
